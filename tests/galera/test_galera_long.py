# SPDX-License-Identifier: Apache-2.0
"""The long cases on three nodes; they run with the option `--galera-long`."""

import threading
from pathlib import Path

import pytest

from tests.galera.conftest import Tell
from tests.galera.scene import Scene
from tests.servers import Galera, Proxy

IMAGES = 3000


@pytest.mark.parametrize("isolation", ["OFF", "ON"])
@pytest.mark.parametrize("sync_wait", ["0", "7"])
def test_settings(
    cluster: Galera, tmp_path: Path, tell: Tell, sync_wait: str, isolation: str
) -> None:
    cluster.set_variable("wsrep_sync_wait", sync_wait)
    cluster.set_variable("innodb_snapshot_isolation", isolation)
    with Scene(cluster, tmp_path) as scene:
        tell(scene.play(IMAGES))


def test_a_node_is_killed(cluster: Galera, tmp_path: Path, tell: Tell) -> None:
    node = cluster.nodes[0]
    with Scene(cluster, tmp_path) as scene:

        def fault() -> None:
            scene.wait_deleted(0.2)
            node.kill()
            scene.wait_deleted(0.5)
            assert cluster.nodes[1].cluster_size() == 2
            node.start()

        tell(scene.play(IMAGES, fault, excused=[scene.agents[0].name]))


def test_a_node_is_frozen(cluster: Galera, tmp_path: Path, tell: Tell) -> None:
    node = cluster.nodes[0]
    with Scene(cluster, tmp_path) as scene:

        def fault() -> None:
            scene.wait_deleted(0.2)
            node.freeze()
            try:
                threading.Event().wait(20)
                assert cluster.nodes[1].cluster_size() == 2
            finally:
                node.thaw()

        tell(scene.play(IMAGES, fault, excused=[scene.agents[0].name]))


def test_an_agent_moves_to_another_node(cluster: Galera, tmp_path: Path, tell: Tell) -> None:
    first, _, last = cluster.nodes
    with (
        Proxy(first.port) as proxy,
        Scene(cluster, tmp_path, [proxy.port, None, None]) as scene,
    ):

        def fault() -> None:
            for share, node in ((0.2, last), (0.4, first), (0.6, last)):
                scene.wait_deleted(share)
                proxy.point(node.port)

        tell(scene.play(IMAGES, fault))
