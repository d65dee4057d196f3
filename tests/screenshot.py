# SPDX-License-Identifier: Apache-2.0
"""Take the picture of the status page that README.rst shows.

``python -m tests.screenshot etc/docs/images/status-page.png`` runs a real agent for some minutes on
a registry with made-up images in three stores, one of which throttles and one of which is away, and
takes a picture of its page in a real browser. Run it when the page has changed.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from evscrub.demo.glance_config import GlanceConfig, migrate, write_config
from tests.functional.agents import AgentProcess
from tests.functional.browser import Browser
from tests.functional.seed import Seed
from tests.functional.store_servers import BUCKET, StoreServer, s3_options, s3_url
from tests.servers import free_port

SECONDS = 240
WIDTH, HEIGHT = 1180, 1180
DELAY_SECONDS = 3600
GIB = 1 << 30
#: Images by store: how many fall due while the agent runs, and how many in the hour after that.
STORES = {"ssd-pool": (600, 3000), "s3-eu": (300, 1500), "s3-edge": (40, 150)}


def seed(images: Seed, server: StoreServer) -> None:
    """Fill the registry and the stores."""
    draw = random.Random(1)
    owners = [uuid.UUID(int=draw.getrandbits(128)).hex for _ in range(6)]

    def add(store: str, due_in: float) -> None:
        name = uuid.UUID(int=draw.getrandbits(128)).hex
        url = {
            "s3-eu": s3_url(server, name),
            "s3-edge": f"s3+http://k:s@127.0.0.1:1/{BUCKET}/{name}",
        }
        images.add(
            deleted_ago=DELAY_SECONDS - due_in,
            store=store,
            owner=draw.choices(owners, [32, 16, 8, 4, 2, 1])[0],
            size=draw.randrange(GIB, 20 * GIB),
            url=url.get(store),
        )
        if store == "s3-eu":
            server.put([f"/{BUCKET}/{name}"])

    for store, (soon, later) in STORES.items():
        for _ in range(soon):
            add(store, draw.uniform(0, SECONDS))
        for _ in range(later):
            add(store, SECONDS + draw.betavariate(2, 4) * 2700)
    for _ in range(12):
        images.add(deleted_ago=2 * DELAY_SECONDS, store="old-san", owner=owners[2], size=4 * GIB)
    for _ in range(30):
        images.add(deleted_ago=None, store="ssd-pool", owner=owners[1], size=10 * GIB)
    images.add(deleted_ago=2 * DELAY_SECONDS, status="active", store="ssd-pool")
    images.write()


def main(picture: Path) -> None:
    """Write the picture."""
    port = free_port()
    with TemporaryDirectory() as folder, StoreServer("memory") as server:
        glance = GlanceConfig(
            Path(folder, "glance"),
            free_port(),
            f"sqlite:///{folder}/glance.sqlite",
            "kombu+memory://",
            stores={"ssd-pool": "file", "s3-eu": "s3", "s3-edge": "s3"},
            store_options={
                "s3-eu": s3_options(server),
                "s3-edge": s3_options(server) | {"s3_store_host": "http://127.0.0.1:1"},
            },
        )
        write_config(glance)
        migrate(glance)
        seed(Seed(glance), server)
        server.behave(rate=8)
        options = {
            "DEFAULT": {"scrub_time": DELAY_SECONDS, "debug": False},
            "status": {"listen": f"127.0.0.1:{port}"},
            "scrubber": {"claim_timeout": 120, "retry_initial": 5, "store_rate": "s3-eu:20"},
            "sweep": {"interval": 30},
        }
        with AgentProcess(Path(folder), glance, options), Browser() as browser:
            time.sleep(SECONDS)
            browser.open(f"http://127.0.0.1:{port}/", width=WIDTH, height=HEIGHT)
            browser.wait("document.querySelectorAll('.owner').length > 2")
            browser.screenshot(picture, whole=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
