# SPDX-License-Identifier: Apache-2.0
"""The status port of a real agent: health, metrics and, in a real browser, the page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.functional import browser
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.conftest import RegistryFactory
from tests.functional.seed import Seed
from tests.servers import MariaDB, free_port, is_open

DUE, WAITING, PARKED, HELD, FAR = 5, 40, 2, 1, 7
OWNER = '<img src=x onerror="document.title=1">'
LATER = 3600


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seed:
    """Return an empty registry without a running Glance."""
    directory = tmp_path_factory.mktemp("glance")
    config = GlanceConfig(
        directory,
        free_port(),
        f"sqlite:///{directory / 'glance.sqlite'}",
        "kombu+memory://",
        stores={"fast": "file", "slow": "file"},
    )
    write_config(config)
    migrate(config)
    return Seed(config)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def agent(
    seeded: Seed, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    for _ in range(DUE):
        seeded.add(deleted_ago=LATER + 10)
    for number in range(WAITING):
        seeded.add(deleted_ago=LATER / 4 + number * 20, owner=OWNER, store="slow")
    for _ in range(FAR):  # due later than the agent looks ahead
        seeded.add(deleted_ago=60, owner=OWNER, store="slow")
    for _ in range(PARKED):
        seeded.add(deleted_ago=LATER + 10, store="nowhere", owner=OWNER)
    for _ in range(HELD):
        seeded.add(deleted_ago=None)
    seeded.add(deleted_ago=LATER + 2000, status="active")
    seeded.write()
    options = {
        "DEFAULT": {"scrub_time": LATER},
        "status": {"listen": f"127.0.0.1:{port}"},
        "scrubber": {"claim_timeout": 60},
        "sweep": {"interval": 60, "full_interval": LATER * 5 // 12},
    }
    running = AgentProcess(tmp_path_factory.mktemp("agent"), seeded.glance, options)
    with running:
        # By the log: the first scrape has the registry counted, and that count is kept for a while.
        wait_for("scrubbing", lambda: scrubbed(running.log) == DUE)
        wait_for("parking", lambda: len(named(port, "parked")) == PARKED)
        wait_for("damage", lambda: named(port, "damaged"))
        yield running
        assert "Traceback" not in running.log


def scrubbed(log: str) -> int:
    """Return how many images an agent logged as scrubbed."""
    return sum(map(int, re.findall(r"Scrubbed (\d+) images?:", log)))


def get(port: int, path: str) -> httpx.Response:
    # Reading the certificates, which nobody needs here, would take longer than the request.
    url = f"http://127.0.0.1:{port}{path}"
    return httpx.get(url, timeout=60, trust_env=False, verify=False)


def scrape(port: int) -> dict[str, float]:
    """Return the sum of each metric over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(port, "/metrics").text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def named(port: int, kind: str) -> list[object]:
    shown: list[object] = get(port, "/status").json()[kind]["shown"]
    return shown


@pytest.mark.usefixtures("agent")
class TestBusyAgent:
    def test_counts_are_correct_after_scrubbing(self, port: int) -> None:
        seen = scrape(port)
        assert seen["evscrub_images_scrubbed_total"] == DUE
        assert seen["evscrub_reclaimed_bytes_total"] == DUE * 1000
        assert seen["evscrub_outcomes_total"] == DUE + PARKED
        assert seen["evscrub_lateness_seconds_count"] == DUE
        assert seen["evscrub_work_duration_seconds_count"] == DUE
        assert seen["evscrub_queue_duration_seconds_count"] == DUE
        assert seen["evscrub_retries_total"] == PARKED
        assert seen["evscrub_registry_parked_images"] == PARKED
        assert seen["evscrub_registry_damaged_images"] == 1
        # The parked ones wait for another try, not for their due time.
        assert seen["evscrub_waiting"] == WAITING
        assert seen["evscrub_awaiting_retry"] == PARKED
        wait_for("count", lambda: "evscrub_registry_pending_bytes" in scrape(port))
        seen = scrape(port)
        assert seen["evscrub_registry_due_images"] == PARKED
        assert seen["evscrub_registry_pending_bytes"] == 1000 * (WAITING + PARKED + HELD + FAR)
        assert seen["evscrub_registry_pending_images"] == WAITING + PARKED + HELD + FAR
        assert seen["evscrub_registry_held_images"] == HELD
        assert seen["evscrub_registry_later_images"] == FAR
        assert seen["evscrub_registry_counted_timestamp_seconds"] > 1e9
        assert seen["evscrub_backlog"] == 0
        assert seen["evscrub_claims"] == 0
        assert seen["evscrub_database_up"] == 1
        assert seen["evscrub_last_sweep_timestamp_seconds"] > 1e9
        assert seen["process_resident_memory_bytes"] > 1e6

    def test_agent_is_healthy_and_ready(self, port: int) -> None:
        assert get(port, "/healthz").text == "ok\n"
        assert get(port, "/readyz").text == "ready\n"

    def test_openmetrics_is_served_on_request(self, port: int) -> None:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/metrics",
            headers={"Accept": "application/openmetrics-text; version=1.0.0"},
            timeout=60,
            trust_env=False,
        )
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")

    def test_status_contains_no_url_and_no_secret(self, port: int, seeded: Seed) -> None:
        for path in ("/", "/status", "/metrics", "/troubles"):
            text = get(port, path).text
            assert "file:" not in text
            assert "sqlite" not in text
            assert str(seeded.glance.directory) not in text

    def test_status_port_is_read_only(self, port: int) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = httpx.request(method, f"http://127.0.0.1:{port}/", timeout=60, trust_env=False)
            assert answer.status_code == 405
        assert get(port, "/nothing").status_code == 404

    def test_second_agent_runs_without_the_occupied_port(
        self, port: int, seeded: Seed, tmp_path: Path, agent: AgentProcess
    ) -> None:
        options = agent.options
        with AgentProcess(tmp_path, seeded.glance, options) as second:
            second.wait_for_log("Several agents on one host")
            assert "Sweep (full)" in second.log
        assert get(port, "/healthz").text == "ok\n"

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    @pytest.mark.parametrize("width", [390, 1280])
    def test_page_shows_the_status(
        self,
        port: int,
        width: int,
        dark: bool,
        tmp_path: Path,
    ) -> None:
        with browser.Browser() as page:
            page.open(f"http://127.0.0.1:{port}/", width=width, dark=dark)
            page.wait("document.querySelectorAll('.owner').length == 2")
            text = page.value("document.body.innerText")
            for wanted in ("live", "Damaged", "Parked", "store not enabled", "fast", "1 held"):
                assert wanted in text
            # The registry's count beside the agent's own, with when it was read.
            tiles = page.value("document.querySelector('#tiles').innerText").split("\n")
            pending, waiting = (tiles.index(name) for name in ("Pending", "Waiting"))
            assert tiles[pending + 1] == str(WAITING + PARKED + HELD + FAR)
            assert "in the registry, " in tiles[pending + 2]
            assert tiles[waiting + 1] == str(WAITING)
            assert "this agent's memory" in tiles[waiting + 2]
            due = page.value("document.querySelector('#due-note').innerText")
            assert f"{WAITING} waiting in this agent's memory; {PARKED} failed" in due
            assert f"{FAR} in the registry due in more than 50 min" in due
            slow = page.value("[...document.querySelectorAll('.store')].at(-2).innerText")
            assert re.search(r"Pending\s+45\.9 KiB", slow)
            space = page.value("document.querySelector('#space-note').innerText")
            assert re.search(r"in 50 images pending, 1 held; read (just now|\d+ \w+ ago)", space)
            assert page.value("document.querySelectorAll('#due-chart .bar').length") > 10
            # What users named things is text, and nothing is wider than the window.
            assert OWNER in text
            assert page.value("document.images.length") == 0
            assert page.value("document.title").endswith("evscrub")
            assert page.value("document.documentElement.scrollWidth") <= width
            low = page.value(CONTRAST)
            assert not low, low
            assert not page.complaints
            page.screenshot(tmp_path / "page.png")
            if keep := os.environ.get("EVSCRUB_SCREENSHOTS"):
                name = f"{width}-{'dark' if dark else 'light'}.png"
                page.screenshot(Path(keep) / name)


#: The texts whose contrast with what is behind them is below WCAG's AA, 4.5 to 1.
CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT", "TITLE"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(rgb(color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim()}`);
  }
  return low.join("; ");
})()"""


def test_images_due_beyond_the_horizon_are_counted(
    new_registry: RegistryFactory, tmp_path: Path
) -> None:
    """The registry has the image, the agent's queue does not."""
    port = free_port()
    url = new_registry("sqlite", "later")
    glance = GlanceConfig(tmp_path, free_port(), url, "kombu+memory://", stores={"fast": "file"})
    write_config(glance)
    seed = Seed(glance)
    for _ in range(3):
        seed.add(deleted_ago=60)
    seed.write()
    options = {
        "DEFAULT": {"scrub_time": 100 * LATER},
        "status": {"listen": f"127.0.0.1:{port}"},
    }
    with AgentProcess(tmp_path, glance, options), browser.Browser() as page:
        page.open(f"http://127.0.0.1:{port}/", width=1280)
        page.wait("document.body?.innerText.includes('3 images in the registry fall due later')")
        text = page.value("document.body.innerText")
        assert "Nothing falls due here within" in text
        assert "Nothing waits" not in text
        assert not page.complaints


class TestReadiness:
    def test_not_ready_before_the_first_sweep_and_without_the_registry(
        self, own_mariadb: MariaDB, tmp_path: Path
    ) -> None:
        port = free_port()
        glance = GlanceConfig(
            tmp_path, free_port(), own_mariadb.new_database("status"), "kombu+memory://"
        )
        write_config(glance)
        migrate(glance)
        options: dict[str, dict[str, object]] = {
            "status": {"listen": f"127.0.0.1:{port}"},
            "sweep": {"interval": 1},
        }
        agent = AgentProcess(tmp_path, glance, options)
        seed = Seed(glance)
        for _ in range(20_000):  # which the first sweep takes a while to go through
            seed.add(deleted_ago=0, with_file=False)
        seed.write()
        agent.options["DEFAULT"]["scrub_time"] = LATER
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(agent.start)
            wait_for("an answer", lambda: is_open(port))
            answer = get(port, "/readyz")
            assert answer.status_code == 503
            assert "the first sweep is not done" in answer.text
            starting.result()
        try:
            wait_for("readiness", lambda: get(port, "/readyz").status_code == 200)
            own_mariadb.stop()
            try:
                wait_for("unreadiness", lambda: get(port, "/readyz").status_code == 503)
                assert "the registry does not answer" in get(port, "/readyz").text
                assert get(port, "/healthz").status_code == 200
                wait_for("notice of it", lambda: scrape(port)["evscrub_database_up"] == 0)
            finally:
                own_mariadb.start()
            wait_for("readiness again", lambda: get(port, "/readyz").status_code == 200)
            wait_for("notice again", lambda: scrape(port)["evscrub_database_up"] == 1)
        finally:
            agent.stop()


def test_listen_none_turns_the_port_off(seeded: Seed, tmp_path: Path) -> None:
    with AgentProcess(tmp_path, seeded.glance, {"status": {"listen": "none"}}) as agent:
        assert "Status page" not in agent.log
        assert agent.process is not None
        assert not _listening_ports(agent.process.pid)


def _listening_ports(pid: int) -> set[str]:
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            sockets.add(str(path.readlink()))
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return {words[1] for words in map(str.split, lines) if words[3] == "0A" and words[9] in inodes}
