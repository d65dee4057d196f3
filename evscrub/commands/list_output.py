# SPDX-License-Identifier: Apache-2.0
"""Columns of ``evscrub list``."""

from evscrub.commands.fitted_table import Layout
from evscrub.commands.table_output import SizeBytes, Table
from evscrub.domain.image_report import ImageReport

TABLE = Table[ImageReport](
    {
        "ID": lambda line: line.id,
        "Name": lambda line: line.name,
        "Owner": lambda line: line.owner,
        "Size": lambda line: None if line.size is None else SizeBytes(line.size),
        "Stores": lambda line: line.stores,
        "Deleted At": lambda line: line.deleted_at,
        "Due At": lambda line: line.due_at,
        "Due In": lambda line: line.due_in,
        "State": lambda line: line.state,
        "Reason": lambda line: line.reason,
    },
    Layout(
        importance=(
            "ID",
            "State",
            "Reason",
            "Due In",
            "Name",
            "Size",
            "Stores",
            "Owner",
            "Due At",
            "Deleted At",
        ),
        wrapped={"Name": 12, "Owner": 12, "Stores": 8, "Reason": 20},
    ),
)
