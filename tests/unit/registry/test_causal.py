# SPDX-License-Identifier: Apache-2.0
"""What an agent asks the database about its nodes when it starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from evscrub.domain.refusals import UnavailableError
from evscrub.registry.causal import may_have_several_nodes


@pytest.mark.parametrize(
    "error",
    [
        db_exception.DBConnectionError("Lost connection to u:secret@db during query"),
        db_exception.DBDeadlock("Deadlock"),
        sa.exc.TimeoutError("QueuePool limit"),
    ],
)
def test_a_connection_cut_after_the_first_look_is_one_line(error: Exception) -> None:
    @contextmanager
    def reading() -> Iterator[None]:
        raise error
        yield

    url = sa.make_url("mysql+pymysql://u:secret@db/glance")
    engine = SimpleNamespace(url=url, dialect=SimpleNamespace(name="mysql"))
    database: Any = SimpleNamespace(engine=engine, reading=reading)
    with pytest.raises(UnavailableError, match="Glance's database cannot be used: ") as caught:
        may_have_several_nodes(database)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
