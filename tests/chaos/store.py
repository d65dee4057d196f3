# SPDX-License-Identifier: Apache-2.0
"""An object store that speaks as much S3 as Glance's driver needs, misbehaves, and takes notes.

Who asks is told by the user agent, to which botocore adds the environment's AWS_SDK_UA_APP_ID.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote

from tests.functional.agents import name_in

BUCKET = "images"
#: The bucket of a second store; its keys are told from the first one's by its name in front.
COPIES = "copies"
ACCESS_KEY, SECRET_KEY = "access", "not-so-secret"
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>by a test</Message></Error>"


class Mood(Enum):
    """How the store treats scrubbers."""

    WELL = "well"
    FAILING = "failing"  #: 500 to everything
    THROTTLING = "throttling"  #: 503 SlowDown to everything
    SLOW = "slow"  #: it takes a while
    CUTTING = "cutting"  #: it hangs up before it does anything


@dataclass(frozen=True)
class Request:
    """A request for an object by somebody who deletes.

    :param at: when it came in, seconds since the epoch.
    :param status: the answer; 0 for none.
    """

    at: float
    ended: float
    who: str
    method: str
    key: str
    status: int

    @property
    def deleted(self) -> bool:
        """Whether it removed an object."""
        return self.method == "DELETE" and self.status == 204


class ObjectStore(ThreadingHTTPServer):
    """The store: a context manager that serves on a port of 127.0.0.1.

    :param scrubbers: what the names of those begin with whose requests are noted and troubled.
    :param delay: seconds that every DELETE takes.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, scrubbers: tuple[str, ...], *, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scrubbers = scrubbers
        self.delay = delay
        self.mood = Mood.WELL
        self.slowness = 1.0
        #: While it is clear, a DELETE is taken in and not answered.
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[Request] = []
        #: Deletes under way by who asked for them.
        self.deleting: Counter[str] = Counter()
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, name="objects", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that are killed hang up."""

    def options(self, bucket: str) -> Mapping[str, str]:
        """Return the options of a store of Glance's."""
        return {
            "s3_store_host": f"http://127.0.0.1:{self.server_address[1]}",
            "s3_store_access_key": ACCESS_KEY,
            "s3_store_secret_key": SECRET_KEY,
            "s3_store_bucket": bucket,
            "s3_store_bucket_url_format": "path",
        }

    def url(self, key: str) -> str:
        """Return an object's URL as Glance writes it into a location."""
        host = f"127.0.0.1:{self.server_address[1]}"
        path = key if "/" in key else f"{BUCKET}/{key}"
        return f"s3://{ACCESS_KEY}:{SECRET_KEY}@{host}/{path}"

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self._objects[key] = data

    def get(self, key: str) -> bytes | None:
        """Return an object, None if there is none."""
        return self._objects.get(key)

    def remove(self, key: str) -> bool:
        """Remove an object; returns whether there was one."""
        return self._objects.pop(key, None) is not None

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def note(self, request: Request) -> None:
        """Keep a request of a scrubber."""
        with self._lock:
            self.requests.append(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectStore

    def do_GET(self) -> None:
        data = self.server.get(self._key())
        if data is None:
            self._answer(404, _ERROR.format("NoSuchKey").encode())
        else:
            self._answer(200, data)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.put(self._key(), data)
        self._answer(200, b"", {"ETag": '"tag"'})

    def do_HEAD(self) -> None:
        key = self._key()
        if key:
            # With the object's size, by which agents tell whether live images are there.
            self._serve_scrubber(
                lambda: 200 if key in self.server else 404, lambda: self.server.get(key) or b""
            )
        else:
            self._answer(200)

    def do_DELETE(self) -> None:
        def delete() -> int:
            time.sleep(self.server.delay)
            self.server.gate.wait()
            self.server.remove(self._key())
            return 204

        who = self._who()
        self.server.deleting[who] += 1
        try:
            self._serve_scrubber(delete)
        finally:
            self.server.deleting[who] -= 1

    def _serve_scrubber(
        self, work: Callable[[], int], body: Callable[[], bytes] = lambda: b""
    ) -> None:
        came, who = time.time(), self._who()
        scrubs = who.startswith(self.server.scrubbers)
        status = self._refusal() if scrubs else None
        if status is None:
            status = work()
        if scrubs:
            self.server.note(Request(came, time.time(), who, self.command, self._key(), status))
        if status:
            code = {500: "InternalError", 503: "SlowDown", 404: "NoSuchKey"}.get(status)
            self._answer(status, _ERROR.format(code).encode() if code else body())
        else:
            self.close_connection = True

    def _who(self) -> str:
        return name_in(self.headers.get("User-Agent", ""))

    def _refusal(self) -> int | None:
        match self.server.mood:
            case Mood.FAILING:
                return 500
            case Mood.THROTTLING:
                return 503
            case Mood.CUTTING:
                return 0
            case Mood.SLOW:
                time.sleep(self.server.slowness)
        return None

    def _key(self) -> str:
        path = unquote(self.path.partition("?")[0]).strip("/")
        bucket, _, key = path.partition("/")
        return key if bucket == BUCKET or not key else path

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Say nothing."""
