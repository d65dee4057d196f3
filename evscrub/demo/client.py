# SPDX-License-Identifier: Apache-2.0
"""A small client for the Glance that the demo and the tests run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATCH_TYPE = "application/openstack-images-v2.1-json-patch"


class GlanceClient:
    """Speak Glance's API v2 as an administrator.

    Every method raises `httpx.HTTPStatusError` where Glance answers with an error, and
    another `httpx.HTTPError` where it does not answer.

    :param url: where Glance listens, such as `http://127.0.0.1:9292`.
    :param project: the caller's project id, which owns the images that it creates.
    :param timeout: seconds to wait for an answer.
    :param clock: seconds on an axis that only goes forward.
    """

    def __init__(
        self,
        url: str,
        *,
        project: str = "admin",
        timeout: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._http = httpx.Client(
            base_url=url,
            headers={"X-Project-Id": project},
            timeout=timeout,
            trust_env=False,
            event_hooks={"response": [_raise_with_body]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create(
        self,
        name: str,
        *,
        owner: str | None = None,
        visibility: str = "shared",
        properties: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        image_id: str | None = None,
    ) -> str:
        """Register an image without data and return its id.

        :param name: the image's name.
        :param owner: id of the project that owns it, the caller's by default.
        :param visibility: `public`, `community`, `shared` or `private`.
        :param properties: the image's own properties.
        :param tags: the image's tags.
        :param image_id: a UUID, else Glance makes one.
        """
        body: dict[str, Any] = {
            "name": name,
            "visibility": visibility,
            "disk_format": "raw",
            "container_format": "bare",
            "tags": list(tags),
            **(properties or {}),
        }
        if owner is not None:
            body["owner"] = owner
        if image_id is not None:
            body["id"] = image_id
        return str(self._http.post("/v2/images", json=body).json()["id"])

    def upload(self, image_id: str, data: bytes, *, store: str | None = None) -> None:
        """Give an image its data.

        :param image_id: the image's UUID.
        :param data: the image's bytes.
        :param store: name of the store that takes them, the default one by default.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if store is not None:
            headers["X-Image-Meta-Store"] = store
        self._http.put(f"/v2/images/{image_id}/file", content=data, headers=headers)

    def download(self, image_id: str) -> bytes:
        """Return an image's data; Glance says 204, so no bytes, if it has none.

        :param image_id: the image's UUID.
        """
        return self._http.get(f"/v2/images/{image_id}/file").content

    def get(self, image_id: str) -> dict[str, Any]:
        """Return what Glance shows of an image.

        :param image_id: the image's UUID.
        """
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

    def delete(self, image_id: str) -> None:
        """Delete an image.

        :param image_id: the image's UUID.
        """
        self._http.delete(f"/v2/images/{image_id}")

    def copy(self, image_id: str, store: str, *, deadline: float = 60.0) -> None:
        """Copy an image's data to a further store and wait until it is there.

        :param image_id: the image's UUID.
        :param store: name of the further store.
        :param deadline: seconds to wait for the copy.
        :raises TimeoutError: the copy was not there in time.
        """
        body = {"method": {"name": "copy-image"}, "stores": [store]}
        self._http.post(f"/v2/images/{image_id}/import", json=body)
        until = self._clock() + deadline
        while True:
            image = self.get(image_id)
            # Glance names the store before its task has put the last touch to the image.
            if store in image["stores"].split(",") and not image.get("os_glance_import_task"):
                return
            if self._clock() > until:
                raise TimeoutError(f"image {image_id} is not in store {store} after {deadline} s")
            time.sleep(0.05)

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
            f"/v2/images/{image_id}", json=operations, headers={"Content-Type": PATCH_TYPE}
        )


def _raise_with_body(response: httpx.Response) -> None:
    if response.is_error:
        response.read()  # httpx has not read the body yet; it says what went wrong
        request = response.request
        msg = f"{request.method} {request.url}: {response.status_code} {response.text[:400]}"
        raise httpx.HTTPStatusError(msg, request=request, response=response)
