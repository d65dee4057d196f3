# SPDX-License-Identifier: Apache-2.0
"""What it costs to tell the object of a location: ``python -m tests.bench.object_keys``.

An agent does so for each location of the registry, once an hour. The text alone, which tells no
object, is what it is compared with.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Hashable

from evscrub.domain import location_crypt
from evscrub.domain.location_urls import index_key, tidy_key

_COUNT = 200_000
_URLS = {
    "file": "file:///var/lib/glance/images/{}",
    "s3": "s3+https://s3.example.com/glance/{}",
    "s3, credentials": "s3+https://KEY:SECRET@s3.example.com/glance/{}",
    "s3, untidy": "s3+https://s3.example.com/glance/{}/?x=1",
    "swift, reference": "swift+config://ref1/glance/{}",
    "swift, credentials": "swift+https://service%3Aglance:secret@keystone.example/v3/glance/{}",
    "rbd": "rbd://0b5f3f2e-5f0f-4a8b-9b4f-0a8d6e9f3c11/images/{}/snap",
    "cinder": "cinder://store/{}",
    "vmware": "vsphere://vc/folder/openstack_glance/{}?dcPath=dc&dsName=ds",
}


def _key(url: str) -> Hashable:
    return hash(tidy_key(url) or index_key(url))


def _text(url: str) -> Hashable:
    return hash(url) if location_crypt.is_url(url) else None


def _microseconds(function: Callable[[str], Hashable], urls: list[str]) -> float:
    began = time.process_time()
    for url in urls:
        function(url)
    return (time.process_time() - began) / len(urls) * 1e6


def main() -> None:
    print(f"{'microseconds a location':24}{'text':>8}{'object':>8}")
    for name, form in _URLS.items():
        urls = [form.format(uuid.uuid4()) for _ in range(_COUNT)]
        print(f"{name:24}{_microseconds(_text, urls):8.2f}{_microseconds(_key, urls):8.2f}")


if __name__ == "__main__":
    main()
