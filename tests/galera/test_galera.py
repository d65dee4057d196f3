# SPDX-License-Identifier: Apache-2.0
"""A short case on three nodes; test_galera_long has more."""

from pathlib import Path

import sqlalchemy as sa

from evscrub.domain.clock import Clock
from evscrub.domain.decisions import LocationRow
from evscrub.registry import nodes
from evscrub.registry.causal import may_have_several_nodes
from evscrub.registry.shared_urls import SharedUrls
from tests.chaos.rows import Rows, connect
from tests.chaos.site import DATABASE
from tests.galera.conftest import Tell
from tests.galera.scene import Scene
from tests.plain_objects import PlainObjects
from tests.servers import Galera


def test_every_node_is_known_and_asked_for_its_time(cluster: Galera) -> None:
    database = connect(cluster.nodes[0].database_url(DATABASE))
    found = nodes.addresses(database)
    assert {port for _, port in found} == {node.port for node in cluster.nodes}
    assert may_have_several_nodes(database)
    clocks = [nodes.read_clock(database, address, Clock().boot) for address in found]
    least, most = nodes.apart([clock for clock in clocks if clock is not None])
    assert None not in clocks
    assert least == 0
    assert most < 5
    database.dispose()


def test_a_location_is_seen_on_every_node_once_it_is_committed_on_one(cluster: Galera) -> None:
    writer = Rows(cluster.nodes[0].database_url(DATABASE))
    database = connect(cluster.nodes[1].database_url(DATABASE))
    shared = SharedUrls(database, PlainObjects(), Clock())
    for number in range(200):
        url = f"s3://host/bucket/{number}"
        wanted = [LocationRow(10**9, url, "fast", "pending_delete", True, None, None)]
        writer.add(("fast", url))
        assert set(shared.among(wanted)) == {10**9}, number
    with database.reading() as connection:  # what it takes is not left behind in the pool
        assert connection.execute(sa.text("SELECT @@SESSION.wsrep_sync_wait")).scalar() == 0
    writer.engine.dispose()
    database.dispose()


def test_each_image_is_deleted_once_or_kept(cluster: Galera, tmp_path: Path, tell: Tell) -> None:
    with Scene(cluster, tmp_path) as scene:
        tally = scene.play(200)
    tell(tally)
    assert tally.restored
    assert tally.held
