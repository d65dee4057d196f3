# SPDX-License-Identifier: Apache-2.0
"""A small client for the Glance that the demo and the tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class GlanceClient:
    """Speak Glance's API v2 as an administrator.

    Every method raises `httpx.HTTPStatusError` where Glance answers with an error, and
    another `httpx.HTTPError` where it does not answer.

    :param url: where Glance listens, such as `http://127.0.0.1:9292`.
    :param project: the caller's project id, which owns the images that it creates.
    :param timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, *, project: str = "admin", timeout: float = 60.0) -> None:
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

    def delete(self, image_id: str) -> None:
        """Delete an image.

        :param image_id: the image's UUID.
        """
        self._http.delete(f"/v2/images/{image_id}")


def _raise_with_body(response: httpx.Response) -> None:
    if response.is_error:
        response.read()  # httpx has not read the body yet; it says what went wrong
        request = response.request
        msg = f"{request.method} {request.url}: {response.status_code} {response.text[:400]}"
        raise httpx.HTTPStatusError(msg, request=request, response=response)
