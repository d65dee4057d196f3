# SPDX-License-Identifier: Apache-2.0
"""``evscrub retry`` and ``evscrub status`` with a real agent, whose images are parked or in use."""

from __future__ import annotations

import json
import uuid
from functools import partial

import httpx

from tests.functional import commands, store_servers
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.store_servers import Location, Site, SiteFactory
from tests.servers import free_port

new_site = store_servers.new_site


def state(address: str) -> dict[str, object]:
    """Return what ``evscrub status`` says of an agent, for scripts."""
    done = commands.run("status", "--agent", address, "-f", "json")
    (found,) = json.loads(done.stdout)
    assert (done.returncode == 0) is (found["state"] == "well"), done.stdout
    shown: dict[str, object] = found
    return shown


def in_trouble(site: Site, agent: AgentProcess) -> set[str]:
    """Return the images that the agent has tried in vain."""
    lines = map(json.loads, site.status(agent, "troubles").splitlines())
    return {line["id"] for line in lines if "id" in line}


def send_as_a_web_page(address: str) -> None:
    """Send requests that a web page of another host could send, and check that all are refused."""
    url = f"http://{address}/retry"
    for headers, code in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 421),
    ):
        sent = httpx.post(
            url, content='{"all": true}', headers=headers, timeout=60, trust_env=False
        )
        assert sent.status_code == code
    assert httpx.get(url, timeout=60, trust_env=False).status_code == 405
    assert httpx.options(url, timeout=60, trust_env=False).status_code == 405


def assign(site: Site, image_id: str, store: str) -> None:
    """Let an image's location name another store."""
    statement = "UPDATE image_locations SET meta_data = :data WHERE image_id = :id"
    site.images.execute(statement, data=json.dumps({"store": store}), id=image_id)


def add_stuck(site: Site) -> tuple[str, str, str, str]:
    """Add images that cannot be deleted: two parked, one in use, one in a store that is away."""
    parked, linked, held = (site.file(str(uuid.uuid4()), "fast") for _ in range(3))
    site.path("link", "fast").symlink_to(linked.removeprefix("file://"))
    slow = site.path("", "slow")
    away = site.file(str(uuid.uuid4()), "slow")
    slow.rename(slow.with_name("elsewhere"))
    slow.mkdir()
    return (
        site.images.add(Location("nowhere", parked)),
        site.images.add(Location("fast", linked)),
        site.images.add(Location("nowhere", held)),
        site.images.add(Location("slow", away)),
    )


def test_images_are_retried_once_what_stopped_them_is_repaired(new_site: SiteFactory) -> None:
    site = new_site({"fast": "file", "slow": "file"})
    parked, linked, held, away = add_stuck(site)
    with site.agent(scrubber={"in_use_delay": 3600, "parked_delay": 3600}) as agent:
        address = str(agent.options["status"]["listen"])
        retry = partial(commands.run, "retry", "--agent", address)
        wait_for("failures", lambda: {parked, linked, held} <= in_trouble(site, agent))
        agent.wait_for_log("Store slow is paused")
        assert [state(address)[kind] for kind in ("parked", "in_use")] == [2, 1]
        send_as_a_web_page(address)
        assert "Retrying" not in agent.log

        # By id: what is repaired is scrubbed, what is held stays.
        for image_id in (parked, held):
            assign(site, image_id, "fast")
        assert commands.run("hold", "--config-file", agent.config_path, held).returncode == 0
        unknown = str(uuid.uuid4())
        done = retry(parked.upper(), held, unknown)
        assert done.returncode == 1
        assert done.stdout == f"{address}: 2 failed images looked at now\n"
        assert done.stderr.startswith(f"{unknown}: not retried: no agent that was asked knows")
        site.wait_scrubbed([parked])
        wait_for("look at the held image", lambda: held not in in_trouble(site, agent))
        agent.wait_for_log("Retrying 2 images, asked for by 127.0.0.1 (3 images: ")
        assert site.images.status(held)[0] == "pending_delete"

        # By store: not yet repaired, it waits as before, with one more try.
        assert retry("--store", "fast").returncode == 0
        wait_for("another try", lambda: '"tries": 2' in site.status(agent, "troubles"))
        assert site.images.status(linked)[0] == "pending_delete"
        site.path("link", "fast").unlink()
        done = retry("--store", "fast")
        assert (done.returncode, done.stderr) == (0, "")

        def is_scrubbed() -> bool:
            """Links in a directory are looked for once a second at most."""
            if not site.images.is_scrubbed(linked):
                retry("--store", "fast")
            return site.images.is_scrubbed(linked)

        wait_for("a look after the directory was read again", is_scrubbed)

        # A store that is paused stays so.
        done = retry("--all", "--agent", f"127.0.0.1:{free_port()}")
        assert done.returncode == 1
        assert "store slow is paused: " in done.stderr
        assert "sent the agent SIGHUP" in done.stderr
        assert "no agent answers" in done.stderr
        site.wait_swept(agent)
        assert site.images.status(away)[0] == "pending_delete"
        assert retry("--store", "slaw").stderr.endswith("'slaw': did you mean slow?\n")
        assert str(state(address)["problems"]).startswith("['store slow is paused: ")

        slow = site.path("", "slow")
        slow.rmdir()
        slow.with_name("elsewhere").rename(slow)
        agent.reload()
        site.wait_scrubbed([away])
        assert state(address)["state"] == "well"
    assert commands.run("status", "--agent", address).returncode == 2
