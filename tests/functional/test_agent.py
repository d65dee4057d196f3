# SPDX-License-Identifier: Apache-2.0
"""The agent end to end: real Glance, real RabbitMQ, each kind of database."""

from __future__ import annotations

import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import oslo_messaging
import pytest
from oslo_config import cfg

from tests.functional.agents import DEADLINE_SECONDS, AgentProcess, Registry, wait_for
from tests.functional.conftest import GlanceFactory
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess
from tests.servers import Proxy, RabbitMQ, free_port

#: What the kind of database makes no difference to.
#: SQLite has one file and no server: that an agent works on it is seen by one test, and what else
#: differs there by the tests of claims.
ON_SERVERS = pytest.mark.parametrize(
    "backend", ["mariadb", "postgresql"], indirect=True, scope="module"
)
ON_MARIADB = pytest.mark.parametrize("backend", ["mariadb"], indirect=True, scope="module")
SCRUB_TIME = 2
DATA = b"some image data"


@dataclass
class Site:
    """A Glance with its registry, and what is needed to run agents beside it."""

    glance: GlanceProcess
    client: GlanceClient
    registry: Registry
    rabbitmq: RabbitMQ
    new_directory: Callable[[], Path]

    def agent(self, options: Mapping[str, Mapping[str, object]] | None = None) -> AgentProcess:
        return AgentProcess(self.new_directory(), self.glance.config, options)

    def image(self, **fields: object) -> str:
        """Create and upload an image."""
        made: list[str] = []
        create = partial(self.client.create, "image", **fields)  # type: ignore[arg-type] # fields of create
        self._ask_glance("POST", lambda: made.append(create()))
        self._ask_glance(f"upload of {made[0]}", partial(self.client.upload, made[0], DATA))
        return made[0]

    def delete(self, image_id: str) -> None:
        """Delete an image through the API."""
        refusals = self._ask_glance(
            f"DELETE of {image_id}",
            partial(self.client.delete, image_id),
            partial(self._undo_delete, image_id),
        )
        if refusals:
            self.notify_deleted(image_id)  # one that was refused when all was done sent no event

    def _undo_delete(self, image_id: str) -> None:
        """Put back what a DELETE that broke off has changed; a further one would go on from there.

        Without locations it takes an image for one that has no data.
        """
        live = "status = 'active', deleted = 0, deleted_at = NULL"
        broken_off = "SELECT id FROM images WHERE id = :id AND deleted_at IS NULL"
        for table, column in (("image_locations", "image_id"), ("images", "id")):
            self.registry.execute(
                f"UPDATE {table} SET {live} WHERE {column} IN ({broken_off})", id=image_id
            )

    def _ask_glance(
        self, what: str, ask: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> int:
        """Ask Glance, which on SQLite answers 500 while another process writes.

        :param undo: called before it is asked again.
        :returns: how often it answered so.
        """
        refusals = 0

        def done() -> bool:
            nonlocal refusals
            try:
                if refusals and undo:
                    undo()
                ask()
            except httpx.HTTPStatusError as error:
                if error.response.is_server_error and self.registry.is_sqlite:
                    refusals += 1
                    return False
                if not refusals:
                    raise  # what was refused may have been done halfway, and not be possible again
            return True

        wait_for(what, done)
        return refusals

    def path(self, image_id: str) -> Path:
        return self.glance.config.data_directory() / image_id

    def is_gone(self, image_id: str) -> bool:
        return not self.path(image_id).exists() and self.registry.is_scrubbed(image_id)

    def wait_gone(self, *image_ids: str) -> None:
        for image_id in image_ids:
            wait_for(f"scrubbing of {image_id}", partial(self.is_gone, image_id))

    def due(self, image_id: str) -> float:
        """Return when a deleted image is due by the registry, seconds since the epoch."""
        value = self.registry.scalar("SELECT deleted_at FROM images WHERE id = :id", id=image_id)
        moment = datetime.fromisoformat(str(value)) if not isinstance(value, datetime) else value
        return moment.replace(tzinfo=UTC).timestamp() + SCRUB_TIME

    def notify(self, event_type: str, payload: object) -> None:
        """Publish a notification as Glance would."""
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(self.glance.config.directory / "glance-api.conf")])
        oslo_messaging.set_transport_defaults("glance")
        transport = oslo_messaging.get_notification_transport(conf)
        notifier = oslo_messaging.Notifier(transport, "image.localhost")
        notifier.info({}, event_type, payload)
        transport.cleanup()

    def notify_deleted(self, image_id: str, **fields: object) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        payload = {"id": image_id, "owner": "x", "status": "pending_delete", "deleted_at": now}
        self.notify("image.delete", payload | fields)


@pytest.fixture(scope="module")
def site(
    glance: GlanceFactory,
    database_url: str,
    rabbitmq: RabbitMQ,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    process = glance(database_url=database_url, transport_url=rabbitmq.url)
    with GlanceClient(process.url) as client:
        yield Site(
            process,
            client,
            Registry(database_url),
            rabbitmq,
            lambda: tmp_path_factory.mktemp("agent"),
        )


@pytest.fixture(scope="class")
def agent(site: Site) -> Iterator[AgentProcess]:
    """Start an agent for tests that do not disturb it; its rare sweeps do not replace the bus."""
    with site.agent({"sweep": {"interval": 3600}}) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.mark.usefixtures("agent")
class TestOneAgent:
    def test_image_is_scrubbed_when_due_and_not_before(self, site: Site) -> None:
        kept, *images = [site.image(owner=f"owner{n % 3}") for n in range(7)]
        for image_id in images:
            site.delete(image_id)
        dues = {image_id: site.due(image_id) for image_id in images}
        waiting = set(images)
        while waiting:
            for image_id in sorted(waiting):
                now = time.time()
                if not site.path(image_id).exists():
                    assert now >= dues[image_id]
                    waiting.discard(image_id)
                assert now < dues[image_id] + DEADLINE_SECONDS
            time.sleep(0.01)
        site.wait_gone(*images)
        assert site.client.download(kept) == DATA

    @ON_SERVERS
    def test_images_of_every_visibility_are_scrubbed(self, site: Site) -> None:
        images = [site.image(visibility=v) for v in ("private", "shared", "community", "public")]
        for image_id in images:
            site.delete(image_id)
        site.wait_gone(*images)

    @ON_SERVERS
    def test_duplicate_event_is_harmless(self, site: Site, agent: AgentProcess) -> None:
        image_id = site.image()
        site.delete(image_id)
        for _ in range(3):
            site.notify_deleted(image_id)
        site.wait_gone(image_id)
        site.notify_deleted(image_id)
        told = re.compile(rf"Scrubbed \d+ images?: .*\b{image_id}\b")
        wait_for("the trace of it", lambda: told.search(agent.log))
        assert len(told.findall(agent.log)) == 1

    @ON_SERVERS
    def test_forged_event_does_not_delete_an_active_image(self, site: Site) -> None:
        image_id = site.image()
        site.notify_deleted(image_id, deleted_at="2015-01-01T00:00:00Z")
        # An image deleted after it is scrubbed later than the forged one would have been.
        later = site.image()
        site.delete(later)
        site.wait_gone(later)
        assert site.client.download(image_id) == DATA

    @ON_SERVERS
    def test_malformed_events_are_dropped(self, site: Site) -> None:
        for payload in ("text", [1], {"id": 5}, {"id": "x", "status": "pending_delete"}, None):
            site.notify("image.delete", payload)
        site.notify_deleted(str(uuid.uuid4()), deleted_at=["?"])
        site.notify_deleted("x" * 100)
        site.notify_deleted(str(uuid.uuid4()), name="x" * 10_000_000)
        image_id = site.image()
        site.delete(image_id)
        site.wait_gone(image_id)

    @ON_SERVERS
    def test_image_with_an_upper_case_id_is_scrubbed(self, site: Site) -> None:
        image_id = site.image(image_id=str(uuid.uuid4()).upper())
        site.delete(image_id)
        site.wait_gone(image_id)


@ON_SERVERS
def test_sweep_finds_an_image_whose_event_was_lost(site: Site) -> None:
    with site.agent() as agent:
        agent.signal(signal.SIGSTOP)
        images = [site.image() for _ in range(3)]
        for image_id in images:
            site.delete(image_id)
        site.rabbitmq.purge_queue("evscrub.info")
        site.rabbitmq.close_all_connections()  # with what the agent had prefetched
        site.rabbitmq.purge_queue("evscrub.info")
        agent.signal(signal.SIGCONT)
        site.wait_gone(*images)


@ON_SERVERS
def test_waiting_images_are_scrubbed_after_a_restart(site: Site) -> None:
    with site.agent({"DEFAULT": {"scrub_time": 3600}}) as agent:
        images = [site.image() for _ in range(3)]
        for image_id in images:
            site.delete(image_id)
        wait_for("events", lambda: site.rabbitmq.list_queues().get("evscrub.info") == 0)
        assert agent.stop() == 0
        assert all(site.path(image_id).exists() for image_id in images)
        agent.options["DEFAULT"]["scrub_time"] = 1
        agent.write_config()
        agent.start()
        site.wait_gone(*images)


@ON_SERVERS
def test_images_of_a_killed_agent_are_scrubbed_by_the_next(site: Site) -> None:
    images = [site.image() for _ in range(5)]
    for image_id in images:
        site.delete(image_id)
    # As a dead agent leaves it: claimed, the lease old.
    site.registry.execute("UPDATE images SET status = 'deleted' WHERE status = 'pending_delete'")
    site.registry.execute(
        "UPDATE image_locations SET updated_at = '2020-01-01 00:00:00'"
        " WHERE status = 'pending_delete'"
    )
    with site.agent():
        site.wait_gone(*images)


@ON_SERVERS
def test_pending_image_without_location_is_finished(site: Site) -> None:
    image_id = site.image()
    site.delete(image_id)
    site.path(image_id).unlink()
    site.registry.execute(
        "UPDATE image_locations SET status = 'deleted' WHERE image_id = :id", id=image_id
    )
    with site.agent():
        site.wait_gone(image_id)


@ON_SERVERS
def test_rows_may_be_purged_while_an_image_waits(site: Site) -> None:
    with site.agent({"DEFAULT": {"scrub_time": 3600}}) as agent:
        purged, other = site.image(), site.image()
        site.delete(purged)
        site.delete(other)
        wait_for("events", lambda: site.rabbitmq.list_queues().get("evscrub.info") == 0)
        for table in ("image_locations", "image_properties", "image_tags", "image_members"):
            site.registry.execute(f"DELETE FROM {table} WHERE image_id = :id", id=purged)
        site.registry.execute("DELETE FROM images WHERE id = :id", id=purged)
        agent.options["DEFAULT"]["scrub_time"] = 1
        agent.reload()
        site.wait_gone(other)
        assert "Traceback" not in agent.log
        site.path(purged).unlink()


@ON_SERVERS
def test_sigterm_releases_unstarted_images(site: Site) -> None:
    """A stopped agent releases unstarted images, and the next agent scrubs them."""
    images = [site.image() for _ in range(30)]
    for image_id in images:
        site.delete(image_id)
    slow = {"scrubber": {"rate": 0.2, "concurrency": 2}}
    with site.agent(slow) as agent:
        wait_for("the first", lambda: any(site.is_gone(image_id) for image_id in images))
        assert agent.stop() == 0
    left = [image_id for image_id in images if not site.is_gone(image_id)]
    assert left
    for image_id in left:
        assert site.registry.status(image_id) == ("pending_delete", {"pending_delete"})
        assert site.path(image_id).exists()
    with site.agent():
        site.wait_gone(*left)


@ON_MARIADB
def test_reload_applies_a_shorter_delay(site: Site) -> None:
    with site.agent({"DEFAULT": {"scrub_time": 3600}}) as agent:
        image_id = site.image()
        site.delete(image_id)
        wait_for("event", lambda: site.rabbitmq.list_queues().get("evscrub.info") == 0)
        agent.options["DEFAULT"]["scrub_time"] = 1
        agent.reload()
        site.wait_gone(image_id)


@ON_MARIADB
def test_reload_of_an_invalid_option_changes_nothing(site: Site) -> None:
    """The agent logs the option and its line, keeps the old values, and accepts the next reload."""
    wrong = (
        ("DEFAULT", "scrub_tme", "86400"),
        ("DEFAULT", "scrub_time", ""),
        ("scrubber", "not_found_limit", ""),
        ("scrubber", "rate", "nan"),
        ("scrubber", "batch_size", "1e20"),
        ("sweep", "interval", "100000000000000000000"),
        ("DEFAULT", "debug", "perhaps"),
        ("DEFAULT", "log_config_append", "/nosuch.ini"),
        ("scruber", "rate", "1"),
    )
    with site.agent({"DEFAULT": {"scrub_time": 3600}}) as agent:
        kept = site.image()
        site.delete(kept)
        right = {group: dict(values) for group, values in agent.options.items()}
        for group, name, value in wrong:
            agent.options = {group: dict(values) for group, values in right.items()}
            agent.options["DEFAULT"]["scrub_time"] = 0
            agent.options.setdefault(group, {})[name] = value
            seen = len(agent.log)
            agent.write_config()
            agent.signal(signal.SIGHUP)
            agent.wait_for_log("Configuration not reloaded, nothing is changed: ", after=seen)
            (line,) = (line for line in agent.log[seen:].splitlines() if "not reloaded" in line)
            assert f"{agent.config_path}:" in line
            assert (f"[{group}]" if group == "scruber" else name) in line
        agent.options = right
        agent.options["DEFAULT"]["scrub_time"] = 1800
        agent.reload()
        assert site.path(kept).exists()
        agent.options["DEFAULT"]["scrub_time"] = 1
        agent.reload()
        site.wait_gone(kept)
        assert "Traceback" not in agent.log


@ON_MARIADB
def test_agent_starts_and_stops_without_a_broker(site: Site) -> None:
    images = [site.image() for _ in range(2)]
    for image_id in images:
        site.delete(image_id)
    port = free_port()
    agent = site.agent({"DEFAULT": {"transport_url": site.rabbitmq.seen_at(port).url}})
    try:
        agent.start(joined=False)
        site.wait_gone(*images)
        with Proxy(site.rabbitmq.port, port):
            agent.wait_for_log("Listening on the bus")
        assert agent.stop() == 0
    finally:
        agent.__exit__()


@ON_MARIADB
def test_guru_meditation_report(site: Site) -> None:
    with site.agent() as agent:
        agent.signal(signal.SIGUSR2)
        agent.wait_for_log("Guru Meditation")


@ON_MARIADB
def test_agent_does_not_write_to_glances_log(site: Site) -> None:
    log = site.glance.config.log_path
    with site.agent() as agent:
        assert "evscrub" not in log.read_text()
        assert "Sweep (full)" in agent.log


@ON_MARIADB
def test_image_deleted_without_delayed_delete_is_ignored(
    site: Site, glance: GlanceFactory, database_url: str, rabbitmq: RabbitMQ
) -> None:
    """The event says so, and only Glance deletes the data."""
    direct = glance(database_url=database_url, transport_url=rabbitmq.url, delayed_delete=False)
    with site.agent() as agent, GlanceClient(direct.url) as client:
        image_id = client.create("image")
        client.upload(image_id, DATA)
        client.delete(image_id)
        later = site.image()
        site.delete(later)
        site.wait_gone(later)
        assert site.registry.is_scrubbed(image_id)
        assert f"Image {image_id}" not in agent.log
