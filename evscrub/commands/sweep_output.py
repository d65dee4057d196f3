# SPDX-License-Identifier: Apache-2.0
"""Columns of ``evscrub sweep``."""

from evscrub.commands.fitted_table import Layout
from evscrub.commands.table_output import SizeBytes, Table
from evscrub.single_pass.account import Sum
from evscrub.single_pass.portions import Portion

#: A line for each sum of portions.
TABLE = Table[Sum](
    {
        "Store": lambda one: one.like.store,
        "Owner": lambda one: one.like.owner,
        "Fate": lambda one: one.like.fate.value,
        "State": lambda one: one.like.state,
        "Reason": lambda one: one.like.reason,
        "Images": lambda one: one.images,
        "Size": lambda one: SizeBytes(one.size_bytes),
        "Due At": lambda one: one.like.due_at,
    },
    Layout(
        importance=("Store", "Fate", "Images", "Size", "Reason", "Owner", "State", "Due At"),
        wrapped={"Store": 8, "Owner": 12, "Reason": 20},
    ),
)
#: A line for each portion.
LONG_TABLE = Table[Portion](
    {
        "ID": lambda one: one.image_id,
        "Owner": lambda one: one.owner,
        "Store": lambda one: one.store,
        "Fate": lambda one: one.fate.value,
        "State": lambda one: one.state,
        "Reason": lambda one: one.reason,
        "Size": lambda one: SizeBytes(one.size_bytes),
        "Due At": lambda one: one.due_at,
    },
    Layout(
        importance=("ID", "Fate", "Reason", "Store", "Size", "State", "Owner", "Due At"),
        wrapped={"Store": 8, "Owner": 12, "Reason": 20},
    ),
)
