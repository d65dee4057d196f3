# SPDX-License-Identifier: Apache-2.0
"""A client for more of Glance's API than the demo uses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from evscrub.demo import client

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATCH_TYPE = "application/openstack-images-v2.1-json-patch"


class GlanceClient(client.GlanceClient):
    """Call Glance's API v2 as an administrator; parameters and errors as in the base class."""

    def get(self, image_id: str) -> dict[str, Any]:
        """Return what Glance shows of an image."""
        return dict(self._http.get(f"/v2/images/{image_id}").json())

    def list(self) -> list[dict[str, Any]]:
        """Return all images that the caller may see, community images included."""
        images: list[dict[str, Any]] = []
        page: str | None = "/v2/images?visibility=all&limit=500"
        while page is not None:
            answer = self._http.get(page).json()
            images.extend(answer["images"])
            page = answer.get("next")
        return images

    def copy(self, image_id: str, store: str, *, deadline: float = 180.0) -> None:
        """Copy an image's data to a further store and wait until it is there.

        :param image_id: the image's UUID.
        :param store: name of the further store.
        :param deadline: seconds to wait for the copy.
        :raises TimeoutError: the copy was not there in time.
        """
        body = {"method": {"name": "copy-image"}, "stores": [store]}
        self._http.post(f"/v2/images/{image_id}/import", json=body)
        until = time.monotonic() + deadline
        while True:
            image = self.get(image_id)
            # Glance names the store before its task has put the last touch to the image.
            if store in image["stores"].split(",") and not image.get("os_glance_import_task"):
                return
            if time.monotonic() > until:
                raise TimeoutError(f"image {image_id} is not in store {store} after {deadline} s")
            time.sleep(0.05)

    def import_into(self, image_id: str, data: bytes, stores: Sequence[str]) -> None:
        """Stage an image's data and have it imported into several stores, all or none.

        Return as soon as Glance has accepted the import.

        :param image_id: the UUID of a queued image.
        :param data: the image's data.
        :param stores: names of the stores, in the order of the import.
        """
        headers = {"Content-Type": "application/octet-stream"}
        self._http.put(f"/v2/images/{image_id}/stage", content=data, headers=headers)
        body = {
            "method": {"name": "glance-direct"},
            "stores": list(stores),
            "all_stores_must_succeed": True,
        }
        self._http.post(f"/v2/images/{image_id}/import", json=body)

    def delete_location(self, image_id: str, store: str) -> None:
        """Take a live image's data out of one of its stores.

        :param image_id: the image's UUID.
        :param store: name of the store to leave.
        """
        self._http.delete(f"/v2/stores/{store}/{image_id}")

    def add_location(self, image_id: str, url: str, metadata: Mapping[str, str]) -> None:
        """Add a location by its URL; Glance refuses `file` URLs here.

        :param image_id: the image's UUID.
        :param url: where the data is.
        :param metadata: the location's metadata, such as `{"store": NAME}`.
        """
        value = {"url": url, "metadata": dict(metadata)}
        self.patch(image_id, [{"op": "add", "path": "/locations/-", "value": value}])

    def remove_location(self, image_id: str, index: int) -> None:
        """Take a location off a live image by its place in the list.

        :param image_id: the image's UUID.
        :param index: the location's place, counted from 0.
        """
        self.patch(image_id, [{"op": "remove", "path": f"/locations/{index}"}])

    def add_member(self, image_id: str, project: str) -> None:
        """Share an image with a project.

        :param image_id: the UUID of an image whose visibility is `shared`.
        :param project: id of the project.
        """
        self._http.post(f"/v2/images/{image_id}/members", json={"member": project})

    def patch(self, image_id: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Change an image by JSON patch operations.

        :param image_id: the image's UUID.
        :param operations: the operations, in Glance's JSON patch dialect.
        """
        self._http.patch(
            f"/v2/images/{image_id}", json=operations, headers={"Content-Type": _PATCH_TYPE}
        )
