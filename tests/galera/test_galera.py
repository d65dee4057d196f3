# SPDX-License-Identifier: Apache-2.0
"""A short case on three nodes; test_galera_long has more."""

from pathlib import Path

from tests.galera.conftest import Tell
from tests.galera.scene import Scene
from tests.servers import Galera


def test_each_image_is_deleted_once_or_kept(cluster: Galera, tmp_path: Path, tell: Tell) -> None:
    with Scene(cluster, tmp_path) as scene:
        tally = scene.play(200)
    tell(tally)
    assert tally.restored
    assert tally.held
