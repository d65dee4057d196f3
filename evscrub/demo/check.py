# SPDX-License-Identifier: Apache-2.0
"""Verify independently of the agent that deleted data is gone and kept data is untouched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import sqlalchemy as sa

from evscrub.demo.client import GlanceClient
from evscrub.demo.images import STORES, Fate, Plan
from evscrub.demo.stage import Stage
from evscrub.domain.decisions import DELETED
from evscrub.registry.tables import image_locations, images


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    :param says: what holds if nothing is wrong.
    :param wrong: the deviations found, a line each.
    """

    says: str
    wrong: Sequence[str]


def check_uploaded(stage: Stage, plans: Mapping[str, Plan]) -> Check:
    """Check that all data is on disk before anything is deleted."""
    wrong = [
        f"{plan.name}: {path} does not hold its {plan.size} bytes"
        for image_id, plan in plans.items()
        if _size(path := _path(stage, image_id, plan)) != plan.size
    ]
    return Check(f"{len(plans)} files on disk", wrong)


def check_all(stage: Stage, client: GlanceClient, plans: Mapping[str, Plan]) -> list[Check]:
    """Check disk, database and API at the end of the demo.

    :param plans: the plan of each image, by image id.
    """
    gone = {image_id: plan for image_id, plan in plans.items() if plan.fate is not Fate.KEPT}
    kept = {image_id: plan for image_id, plan in plans.items() if plan.fate is Fate.KEPT}
    return [
        _files_absent(stage, gone),
        _nothing_else_left(stage, kept),
        _rows_deleted(stage, gone),
        _rows_kept(stage, kept),
        _downloads(client, kept),
    ]


def _files_absent(stage: Stage, gone: Mapping[str, Plan]) -> Check:
    wrong = [
        f"{plan.name}: {path} is still there"
        for image_id, plan in gone.items()
        if (path := _path(stage, image_id, plan)).exists()
    ]
    return Check(f"disk      {len(gone)} files of deleted images are gone", wrong)


def _nothing_else_left(stage: Stage, kept: Mapping[str, Plan]) -> Check:
    found = {
        path
        for store in STORES
        for path in stage.glance.data_directory(store).rglob("*")
        if path.is_file()
    }
    expected = {_path(stage, image_id, plan) for image_id, plan in kept.items()}
    wrong = [f"{path} is missing" for path in sorted(expected - found)]
    wrong += [f"{path} exists and should not" for path in sorted(found - expected)]
    return Check(f"disk      {len(kept)} files of kept images are the only ones left", wrong)


def _rows_deleted(stage: Stage, gone: Mapping[str, Plan]) -> Check:
    wrong, count = _wrong_rows(stage, gone, status=DELETED, deleted=True)
    return Check(
        f"database  {len(gone)} images and {count} locations of them are deleted",
        wrong,
    )


def _rows_kept(stage: Stage, kept: Mapping[str, Plan]) -> Check:
    wrong, count = _wrong_rows(stage, kept, status="active", deleted=False)
    return Check(f"database  {len(kept)} images and {count} locations of them are active", wrong)


def _wrong_rows(
    stage: Stage, plans: Mapping[str, Plan], *, status: str, deleted: bool
) -> tuple[list[str], int]:
    """Return the deviations from the expected rows, and the number of locations."""
    of_images = sa.select(images.c.id, images.c.status, images.c.deleted)
    of_locations = sa.select(
        image_locations.c.image_id, image_locations.c.status, image_locations.c.deleted
    )
    engine = stage.connect()
    with engine.connect() as connection:
        found = [("image", row) for row in connection.execute(of_images) if row[0] in plans]
        locations = [row for row in connection.execute(of_locations) if row[0] in plans]
    engine.dispose()
    missing = set(plans) - {row[0] for _, row in found}
    missing_locations = set(plans) - {row[0] for row in locations}
    wrong = [f"{plans[image_id].name}: no row in images" for image_id in missing]
    wrong += [
        f"{plans[image_id].name}: no row in image_locations" for image_id in missing_locations
    ]
    wrong += [
        f"{plans[image_id].name}: {what} is {is_status}, deleted={is_deleted}"
        for what, (image_id, is_status, is_deleted) in [
            *found,
            *(("location", row) for row in locations),
        ]
        if (is_status, bool(is_deleted)) != (status, deleted)
    ]
    return sorted(wrong), len(locations)


def _downloads(client: GlanceClient, kept: Mapping[str, Plan]) -> Check:
    wrong = []
    for image_id, plan in kept.items():
        try:
            data = client.download(image_id)
        except httpx.HTTPStatusError as error:
            status = HTTPStatus(error.response.status_code)
            wrong.append(f"{plan.name}: download answers {status.value} {status.phrase}")
        except httpx.HTTPError as error:
            wrong.append(f"{plan.name}: download failed: {type(error).__name__}")
        else:
            if len(data) != plan.size:
                wrong.append(f"{plan.name}: downloaded {len(data)} of {plan.size} bytes")
            elif data != plan.data:
                wrong.append(f"{plan.name}: downloaded bytes differ from the uploaded ones")
    return Check(f"API       {len(kept)} kept images download byte for byte", wrong)


def _path(stage: Stage, image_id: str, plan: Plan) -> Path:
    return stage.glance.data_directory(plan.store) / image_id


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
