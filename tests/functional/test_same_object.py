# SPDX-License-Identifier: Apache-2.0
"""Images that share an S3 object under different URLs, with a real Glance on MariaDB."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests.functional import commands
from tests.functional.agents import AgentProcess, Registry, wait_for
from tests.functional.conftest import GlanceFactory, RegistryFactory
from tests.functional.store_servers import (
    BUCKET,
    URL_KEY,
    URL_USER,
    StoreServer,
    s3_options,
    s3_url,
)
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess
from tests.servers import free_port

DATA = b"data that an image still wants"


@pytest.fixture(scope="module")
def s3() -> Iterator[StoreServer]:
    with StoreServer("moto") as server:
        server.make(f"/{BUCKET}")
        server.make("/billing")
        yield server


@pytest.fixture(scope="module")
def glance(glance: GlanceFactory, new_registry: RegistryFactory, s3: StoreServer) -> GlanceProcess:
    return glance(
        database_url=new_registry("mariadb", "same_object"),
        stores={"objects": "s3"},
        store_options={"objects": s3_options(s3)},
    )


@pytest.fixture(scope="module")
def client(glance: GlanceProcess) -> Iterator[GlanceClient]:
    with GlanceClient(glance.url) as client:
        yield client


@pytest.fixture(scope="module")
def registry(glance: GlanceProcess) -> Iterator[Registry]:
    registry = Registry(glance.config.database_url)
    yield registry
    registry.engine.dispose()


@pytest.fixture(scope="module")
def agent(
    glance: GlanceProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    options = {
        "DEFAULT": {"scrub_time": 0},
        "scrubber": {"parked_delay": 1},
        "sweep": {"interval": 1},
        "status": {"listen": f"127.0.0.1:{free_port()}"},
    }
    with AgentProcess(tmp_path_factory.mktemp("agent"), glance.config, options) as agent:
        yield agent
    assert URL_KEY not in agent.log


def uploaded(client: GlanceClient) -> str:
    image_id = client.create("wanted")
    client.upload(image_id, DATA)
    return image_id


def url_of(registry: Registry, image_id: str) -> str:
    query = "SELECT value FROM image_locations WHERE image_id = :id AND deleted = 0"
    return str(registry.scalar(query, id=image_id))


def aliased(client: GlanceClient, url: str) -> str:
    """Create an image with another project's data."""
    image_id = client.create("alias")
    client.add_location(image_id, url, {"store": "objects"})
    return image_id


def test_data_shared_by_a_rewritten_row_stays(
    client: GlanceClient, registry: Registry, agent: AgentProcess, s3: StoreServer
) -> None:
    """Rows of old releases hold the credentials, which Glance removes when it rewrites a row."""
    doomed = uploaded(client)
    kept = aliased(client, url_of(registry, doomed))
    agent.signal(signal.SIGSTOP)
    client.delete(doomed)
    for image_id in (doomed, kept):
        registry.execute(
            "UPDATE image_locations SET value = :url WHERE image_id = :id",
            url=s3_url(s3, doomed),
            id=image_id,
        )
    client.get(kept)
    assert URL_USER not in url_of(registry, kept)
    agent.signal(signal.SIGCONT)
    wait_for("scrubbing", lambda: registry.is_scrubbed(doomed))
    assert client.download(kept) == DATA
    # The last one takes the data with it.
    client.delete(kept)
    wait_for("scrubbing", lambda: registry.is_scrubbed(kept))
    assert not s3.has(f"/{BUCKET}/{doomed}")


@pytest.mark.parametrize(
    "url",
    [
        "s3+http://{address}/{bucket}/{key}/",
        "s3+http://{address}/{bucket}/{key}?x=1",
        "s3+https://elsewhere.test/{bucket}/{key}#x",
        "s3://u:{secret}@ELSEWHERE.test//{bucket}/{key}",
    ],
)
def test_deleting_an_image_with_anothers_data_keeps_the_data(
    client: GlanceClient, registry: Registry, agent: AgentProcess, s3: StoreServer, url: str
) -> None:
    wanted = uploaded(client)
    spelt = url.format(address=s3.address, bucket=BUCKET, key=wanted, secret=URL_KEY)
    alias = aliased(client, spelt)
    client.delete(alias)
    wait_for("scrubbing", lambda: registry.is_scrubbed(alias))
    assert client.download(wanted) == DATA


def test_location_in_a_foreign_bucket_is_parked_until_allowed(
    client: GlanceClient, registry: Registry, agent: AgentProcess, s3: StoreServer
) -> None:
    ledger = f"/billing/{uuid.uuid4()}"
    s3.put([ledger])
    alias = aliased(client, f"s3+http://{s3.address}{ledger}")
    client.delete(alias)
    agent.wait_for_log(f"Image {alias} is not scrubbed")
    assert s3.has(ledger)
    listed: dict[str, str] = {}

    def is_listed() -> bool:
        arguments = ("--config-file", agent.config_path, "--parked", "-f", "json")
        rows = json.loads(commands.run("list", *arguments).stdout)
        listed.update({row["ID"]: row["Reason"] for row in rows})
        return alias in listed  # not in a moment in which an agent looks at it again

    wait_for("the list", is_listed)
    assert "foreign object: the data is in bucket billing" in listed[alias]
    checked = commands.run("check", "--config-file", agent.config_path, "--json")
    checks = {one["check"]: one for one in json.loads(checked.stdout)["checks"]}
    assert checks["Locations"]["result"] == 0
    assert checks["Foreign locations"]["result"] == 1
    assert "1 pending location cannot be scrubbed" in checks["Foreign locations"]["details"]
    assert "bucket billing" in checks["Foreign locations"]["details"]
    agent.options["scrubber"]["allowed_places"] = "objects:billing"
    agent.reload()
    wait_for("scrubbing", lambda: registry.is_scrubbed(alias))
    assert not s3.has(ledger)
