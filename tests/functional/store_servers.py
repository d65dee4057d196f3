# SPDX-License-Identifier: Apache-2.0
"""Stores for the tests: servers of S3 and Swift, and the libraries of rbd and cinder.

Each server is real, or speaks just what glance_store's driver asks, behind a :class:`Front` that
counts requests and throttles, refuses or holds them. `python -m tests.functional.store_servers
KIND PORT DIRECTORY` runs one in the foreground.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import types
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from evscrub.demo.glance_config import GlanceConfig, write_config
from tests.functional.agents import (
    CLAIM_TIMEOUT_SECONDS,
    DEADLINE_SECONDS,
    AgentProcess,
    Registry,
    name_in,
    wait_for,
)
from tests.functional.glance_tables import SQLiteTemplate
from tests.servers import Server, free_port, is_open
from tests.sharing import shared

REPOSITORY = Path(__file__).parents[2]
#: Where a front is asked about itself.
CONTROL = "/-/"
#: A request with this header goes past the front.
PAST = "X-Past-The-Front"
#: What the stores' configuration holds.
ACCESS_KEY, SECRET_KEY = "configured-access", "configured-secret"
#: What the locations hold.
URL_USER, URL_KEY = "url-user-AKIA0", "url-secret-x7Q"
BUCKET = "glance"
SWIFT_ACCOUNT = "AUTH_test"
#: Longest that a request is held.
_HANG_SECONDS = 120.0

SiteFactory = Callable[..., "Site"]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class Behavior:
    """How a front treats requests.

    :param rate: accepted a second, 0 for any number; what is above is refused.
    :param refuse: a status that everything is answered with, 0 for none.
    :param refuse_methods: the methods that `refuse` is for, all when empty.
    :param status: what requests above `rate` are answered with.
    :param seconds: how long each takes.
    :param hang: whether they are held until the behavior changes.
    """

    rate: float = 0.0
    refuse: int = 0
    refuse_methods: list[str] = field(default_factory=list)
    status: int = 503
    seconds: float = 0.0
    hang: bool = False


class Request(NamedTuple):
    """A request that came to a front.

    :param at: when, on the machine's monotonic clock.
    :param who: the name that the client has from :func:`tests.functional.agents.known_as`, if any.
    """

    at: float
    method: str
    path: str
    status: int
    who: str = ""


class Front:
    """A WSGI application before another one."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind
        self._behavior = Behavior()
        self._requests: list[Request] = []
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._filled = time.monotonic()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(path.removeprefix(CONTROL), environ, start_response)
        if "HTTP_" + PAST.upper().replace("-", "_") in environ:
            return self._behind(environ, start_response)
        at, method = time.monotonic(), environ["REQUEST_METHOD"]
        with self._lock:
            behavior, changed = self._behavior, self._changed
            refused = self._refusal(behavior, method, at)
        if behavior.hang:
            changed.wait(_HANG_SECONDS)
        if behavior.seconds:
            time.sleep(behavior.seconds)
        statuses = [refused]
        if refused:
            answer = _refuse(refused, method, start_response)
        else:

            def started(status: str, headers: list[Any], *rest: Any) -> Any:
                statuses.append(int(status[:3]))
                return start_response(status, headers, *rest)

            answer = self._behind(environ, started)
        with self._lock:
            who = name_in(environ.get("HTTP_USER_AGENT", ""))
            self._requests.append(Request(at, method, path, statuses[-1], who))
        return answer

    def _refusal(self, behavior: Behavior, method: str, now: float) -> int:
        if behavior.refuse and method in (behavior.refuse_methods or [method]):
            return behavior.refuse
        if behavior.rate:
            # As much at once as it gives in a fifth of a second.
            most = max(1.0, behavior.rate / 5)
            self._tokens = min(most, self._tokens + (now - self._filled) * behavior.rate)
            self._filled = now
            if self._tokens < 1:
                return behavior.status
            self._tokens -= 1
        return 0

    def _control(
        self, what: str, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        answer: object = None
        length = int(environ.get("CONTENT_LENGTH") or 0)
        given: Any = json.loads(environ["wsgi.input"].read(length)) if length else None
        with self._lock:
            if what == "behavior":
                self._behavior = Behavior(**given)
                self._changed.set()
                self._changed = threading.Event()
            elif what == "requests":
                answer = self._requests[int(environ.get("QUERY_STRING") or 0) :]
            elif isinstance(self._behind, MemoryS3):
                if given is not None:
                    self._behind.objects.update(given)
                answer = sorted(self._behind.objects)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def _refuse(status: int, method: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    code = {429: "TooManyRequests", 503: "SlowDown", 500: "InternalError", 403: "AccessDenied"}
    body = f"<Error><Code>{code.get(status, 'Error')}</Code><Message>no</Message></Error>".encode()
    start_response(
        f"{status} Refused",
        [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))],
    )
    return [] if method == "HEAD" else [body]


class MemoryS3:
    """As much of S3 as its driver asks for to delete, on paths alone."""

    def __init__(self) -> None:
        self.objects: set[str] = set()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if method == "DELETE":
            self.objects.discard(path)
            status = "204 No Content"
        else:
            status = "200 OK" if path in self.objects else "404 Not Found"
        headers = [] if method == "DELETE" else [("Content-Length", "0")]
        start_response(status, headers)
        return []


class StoreServer(Server):
    """A server of a store in a process of its own: a context manager.

    :param kind: `memory`, an S3 in memory; `moto`, moto's S3; `swift`, OpenStack's own Swift.
    """

    package = "store"

    def __init__(self, kind: str, *, deadline: float = 180.0) -> None:
        super().__init__(deadline=deadline)
        self.kind = kind
        self.address = f"127.0.0.1:{self.port}"
        self._client = httpx.Client(
            base_url=f"http://{self.address}", timeout=30, trust_env=False, headers={PAST: "1"}
        )

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def close(self) -> None:
        """Stop the server and remove its folder."""
        super().close()
        self._client.close()

    def behave(self, **fields: object) -> None:
        """Let the front treat requests so from now on; see :class:`Behavior`."""
        self._client.post(f"{CONTROL}behavior", json=fields or {"rate": 0}).raise_for_status()

    def requests(self, after: int = 0) -> list[Request]:
        """Return the requests that have been answered, but for the first so many."""
        answer = self._client.get(f"{CONTROL}requests?{after}").raise_for_status().json()
        return [Request(*request) for request in answer]

    def put(self, paths: Sequence[str], **headers: str) -> None:
        """Make objects, given as /container/object, past the front."""
        if self.kind == "memory":
            self._client.post(f"{CONTROL}objects", json=list(paths)).raise_for_status()
            return
        for path in paths:
            self._ask("PUT", path, content=b"data", headers=headers).raise_for_status()

    def make(self, path: str) -> None:
        """Make a container, given as /container, past the front, if it is not there."""
        made = self._ask("PUT", path)
        assert made.is_success or made.status_code == 409

    def has(self, path: str) -> bool:
        """Whether there is such an object, asked past the front."""
        answer = self._ask("HEAD", path)
        assert answer.status_code in {200, 404}
        return answer.status_code == 200

    def remove(self, path: str) -> None:
        """Remove an object or a container past the front."""
        self._ask("DELETE", path).raise_for_status()

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove objects past the front."""
        for path in paths:
            self.remove(path)

    def left(self) -> set[str]:
        """Return the objects of a server of kind `memory`."""
        return set(self._client.get(f"{CONTROL}objects").raise_for_status().json())

    def _ask(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        if self.kind == "swift":
            user = {"X-Storage-User": "test:tester", "X-Storage-Pass": URL_KEY}
            token = self._client.get("/auth/v1.0", headers=user).headers["X-Auth-Token"]
            path, own = f"/v1/{SWIFT_ACCOUNT}{path}", {"X-Auth-Token": token}
        else:
            # moto looks at who signs, not at the signature.
            scope = "Credential=test/20260101/us-east-1/s3/aws4_request"
            own = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
        return self._client.request(
            method, path, content=content, headers={**own, **(headers or {})}
        )

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        module = "tests.functional.store_servers"
        return [sys.executable, "-m", module, self.kind, str(self.port), str(self.directory)]

    def _ready(self) -> bool:
        return is_open(self.port)

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}


# -- images


def s3_url(server: StoreServer, name: str) -> str:
    """A location in a server's bucket with credentials in it, as old releases wrote them."""
    return f"s3+http://{URL_USER}:{URL_KEY}@{server.address}/{BUCKET}/{name}"


def s3_options(server: StoreServer) -> dict[str, str]:
    """The options of an s3 store on a server."""
    return {
        "s3_store_host": server.url,
        "s3_store_access_key": ACCESS_KEY,
        "s3_store_secret_key": SECRET_KEY,
        "s3_store_bucket": BUCKET,
        "s3_store_bucket_url_format": "path",
    }


class Location(NamedTuple):
    """A location to be written into the registry; its store's name is None in a single store."""

    store: str | None
    url: str
    status: str = "pending_delete"


class Images(Registry):
    """Writes images into Glance's tables as Glance would leave them, and reads what they became."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        known = sa.MetaData()
        known.reflect(self.engine, only=["images", "image_locations"])
        self._images = known.tables["images"]
        self._locations = known.tables["image_locations"]

    def add(
        self,
        *locations: Location,
        owner: str = "owner",
        status: str = "pending_delete",
        age: float = 60.0,
    ) -> str:
        """Write an image with its locations and return its id.

        :param status: the image's; all but `pending_delete` and `deleted` are live.
        :param age: seconds since it, and each of its locations that is not live, was deleted.
        """
        (image_id,) = self.add_many([locations], owner=owner, status=status, age=age)
        return image_id

    def add_many(
        self,
        images: Sequence[Sequence[Location]],
        *,
        owner: str = "owner",
        status: str = "pending_delete",
        age: float = 60.0,
    ) -> list[str]:
        """Write many images, given by their locations, and return their ids."""
        ids = [str(uuid.uuid4()) for _ in images]
        then = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(seconds=age)
        created = then - timedelta(days=1)
        times = {"created_at": created, "updated_at": then}
        deleted = status in {"pending_delete", "deleted"}
        image: dict[str, object] = {
            **times,
            "name": "image",
            "size": 4,
            "status": status,
            "visibility": "shared",
            "owner": owner,
            "min_disk": 0,
            "min_ram": 0,
            "protected": False,
            "os_hidden": False,
            "deleted": deleted,
            "deleted_at": then if deleted else None,
        }
        rows = []
        for image_id, locations in zip(ids, images, strict=True):
            for location in locations:
                live = location.status == "active"
                metadata = {} if location.store is None else {"store": location.store}
                rows.append(
                    {
                        **times,
                        "image_id": image_id,
                        "value": location.url,
                        "meta_data": json.dumps(metadata),
                        "status": location.status,
                        "deleted": not live,
                        "deleted_at": None if live else then,
                    }
                )
        with self.engine.begin() as connection:
            connection.execute(self._images.insert(), [{**image, "id": number} for number in ids])
            if rows:
                connection.execute(self._locations.insert(), rows)
        return ids

    def fall_due(self, image_id: str) -> None:
        """Let a pending image have been deleted a minute ago."""
        then = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=1)
        update = self._images.update().where(self._images.c.id == image_id)
        with self.engine.begin() as connection:
            connection.execute(update.values(deleted_at=then))

    def statuses(self) -> Counter[str]:
        """How many images there are of each status."""
        with self.engine.connect() as connection:
            query = sa.select(self._images.c.status, sa.func.count()).group_by(
                self._images.c.status
            )
            return Counter({row[0]: row[1] for row in connection.execute(query)})

    def at_rest(self) -> set[str]:
        """Which images await scrubbing while no agent has a claim on them."""
        ran_out = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=CLAIM_TIMEOUT_SECONDS)
        query = (
            sa.select(self._images.c.id)
            .join(self._locations, self._locations.c.image_id == self._images.c.id)
            .where(
                self._locations.c.status == "pending_delete",
                sa.or_(
                    self._images.c.status == "pending_delete",
                    self._locations.c.updated_at <= ran_out,
                ),
            )
        )
        with self.engine.connect() as connection:
            return set(connection.scalars(query))

    def locations(self, image_id: str) -> dict[str, str]:
        """The status of each of an image's locations by its URL."""
        with self.engine.connect() as connection:
            query = sa.select(self._locations.c.value, self._locations.c.status)
            rows = connection.execute(query.where(self._locations.c.image_id == image_id))
            return {row[0]: row[1] for row in rows}


class Site:
    """A Glance's configuration and registry, without a Glance, for agents to run on.

    :param directory: an empty folder.
    :param database_url: a migrated, empty database.
    :param stores: type of each store by its name; empty for a single file store.
    :param store_options: options of each store.
    :param key: `metadata_encryption_key`.
    """

    def __init__(
        self,
        directory: Path,
        database_url: str,
        stores: Mapping[str, str],
        store_options: Mapping[str, Mapping[str, str]],
        key: str | None,
    ) -> None:
        self.config = GlanceConfig(
            directory=directory / "glance",
            port=0,
            database_url=database_url,
            transport_url="kombu+memory://",
            stores=stores,
            store_options=store_options,
            metadata_encryption_key=key,
        )
        write_config(self.config)
        self.images = Images(database_url)
        self.agents: list[AgentProcess] = []
        self._directory = directory

    def agent(
        self, scrubber: Mapping[str, object] | None = None, **groups: Mapping[str, object]
    ) -> AgentProcess:
        """Return an agent that is not started; its sweeps are frequent, its delay is 0."""
        options: dict[str, dict[str, object]] = {
            "DEFAULT": {"scrub_time": 0},
            "scrubber": dict(scrubber or {}),
            "sweep": {"interval": 1},
        }
        for group, values in groups.items():
            options.setdefault(group, {}).update(values)
        options.setdefault("status", {})["listen"] = f"127.0.0.1:{free_port()}"
        directory = self._directory / f"agent{len(self.agents)}"
        directory.mkdir()
        agent = AgentProcess(directory, self.config, options)
        self.agents.append(agent)
        return agent

    def status(self, agent: AgentProcess, page: str) -> str:
        """What an agent shows on a page of its status."""
        address = agent.options["status"]["listen"]
        answer = httpx.get(f"http://{address}/{page}", timeout=60, trust_env=False)
        text = answer.raise_for_status().text
        for secret in (URL_USER, URL_KEY):
            assert secret not in text
        return text

    def wait_swept(self, agent: AgentProcess, times: int = 3) -> None:
        """Wait until the agent has swept so many times more; what was due was looked at then."""
        before = agent.log.count("Sweep (")
        wait_for("sweeps", lambda: agent.log.count("Sweep (") >= before + times)

    def path(self, name: str, store: str = "") -> Path:
        """The path of an image's data in a file store."""
        directory = self.config.data_directory(*([store] if store else []))
        return directory / name

    def file(self, name: str, store: str = "") -> str:
        """Write an image's data into a file store and return its URL."""
        path = self.path(name, store)
        path.write_bytes(b"data")
        return f"file://{path}"

    def wait_scrubbed(self, ids: Iterable[str], deadline: float = DEADLINE_SECONDS) -> None:
        """Wait until images and all their locations are deleted."""
        for image_id in ids:
            wait_for(
                f"scrubbing of {image_id}", partial(self.images.is_scrubbed, image_id), deadline
            )

    def wait_deleted(self, count: int, deadline: float = DEADLINE_SECONDS) -> None:
        """Wait until so many images are deleted, with no location left, and no other is pending."""

        def true() -> bool:
            return (
                self.images.statuses()["deleted"] == count
                and not self.images.statuses()["pending_delete"]
                and not self.images.scalar(
                    "SELECT count(*) FROM image_locations WHERE status = 'pending_delete'"
                )
            )

        wait_for(f"scrubbing of {count} images", true, deadline)

    def check_logs(self) -> None:
        """Search what the agents logged for credentials of locations."""
        for agent in self.agents:
            for number, line in enumerate(agent.log.splitlines(), 1):
                for secret in (URL_USER, URL_KEY):
                    assert secret not in line, f"{agent.log_path}:{number}: {line}"


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[SiteFactory]:
    """Return a function that makes a :class:`Site`; afterwards its agents' logs are searched."""
    sites: list[Site] = []

    def make(
        stores: Mapping[str, str] | None = None,
        key: str | None = None,
        **options: Mapping[str, str],
    ) -> Site:
        directory = tmp_path / f"site{len(sites)}"
        directory.mkdir()
        url = shared(SQLiteTemplate).copy("glance", directory)
        sites.append(Site(directory, url, stores or {}, options, key))
        return sites[-1]

    yield make
    for site in sites:
        for agent in site.agents:
            agent.__exit__()
        site.check_logs()


@pytest.fixture(scope="session")
def memory_s3() -> Iterator[StoreServer]:
    """Return an S3 in memory."""
    with StoreServer("memory") as server:
        yield server


# -- the libraries below the drivers of rbd and cinder


class FakeLibraries:
    """Modules for `sys.modules`, as thin as the drivers allow.

    What a name begins with says what becomes of a delete: `busy`, `snapshots`, `trashbusy`,
    `missing`, `broken`, or anything else for success. Each is written down.

    :param record: where to write down names of images and volumes, one a line.
    """

    def __init__(self, record: Path) -> None:
        self.record = record
        #: While it is there, the pool has no image.
        self.wrong_pool = record.with_name("wrong-pool")

    def modules(self) -> dict[str, types.ModuleType]:
        """All modules by name."""
        return {**self._ceph(), **self._cinder()}

    def asked(self) -> list[str]:
        """The names that were to be deleted, in order."""
        return self.record.read_text().split() if self.record.exists() else []

    def _note(self, name: str) -> None:
        with self.record.open("a") as file:
            file.write(f"{name}\n")

    def _ceph(self) -> dict[str, types.ModuleType]:  # noqa: C901 - small classes
        rados, rbd = _module("rados"), _module("rbd")
        rados.Error = _error("Error", Exception, "rados")
        rados.ObjectNotFound = _error("ObjectNotFound", rados.Error, "rados")
        rbd.Error = _error("Error", Exception, "rbd")
        for name in ("ImageBusy", "ImageHasSnapshots", "ImageNotFound", "InvalidArgument"):
            setattr(rbd, name, _error(name, rbd.Error, "rbd"))
        rbd.OSError = _error("OSError", rbd.Error, "rbd")

        class Rados(_Resource):
            def __init__(self, conffile: str, rados_id: str) -> None:
                pass

            def conf_set(self, name: str, value: str) -> None:
                pass

            def connect(self) -> None:
                pass

            def shutdown(self) -> None:
                pass

            def get_fsid(self) -> str:
                return "fsid"

            def open_ioctx(self, pool: str) -> _Resource:
                if pool == "nopool":
                    raise rados.ObjectNotFound("error opening pool")
                return _Resource()

        wrong_pool = self.wrong_pool

        class Image(_Resource):
            def __init__(self, ioctx: object, name: str, **_fields: object) -> None:
                self.name = name
                if name.startswith("missing") or wrong_pool.exists():
                    raise rbd.ImageNotFound(name)

            def stat(self) -> dict[str, int]:
                return {"size": 4}

            def unprotect_snap(self, snapshot: str) -> None:
                if self.name.startswith("busy"):
                    raise rbd.ImageBusy("error unprotecting snapshot")

            def remove_snap(self, snapshot: str) -> None:
                pass

        note = self._note

        class RBD:
            def remove(self, ioctx: object, name: str) -> None:
                if wrong_pool.exists():
                    raise rbd.ImageNotFound(name)
                note(name)
                for start, error in {
                    "snapshots": rbd.ImageHasSnapshots,
                    "trashbusy": rbd.ImageHasSnapshots,
                    "watched": rbd.ImageBusy,
                    "missing": rbd.ImageNotFound,
                    "broken": rbd.OSError,
                }.items():
                    if name.startswith(start):
                        raise error(f"error removing {name}")

            def trash_move(self, ioctx: object, name: str) -> None:
                note(f"trash:{name}")
                if name.startswith("trashbusy"):
                    raise rbd.ImageBusy(name)

        rados.Rados, rbd.Image, rbd.RBD = Rados, Image, RBD
        return {"rados": rados, "rbd": rbd}

    def _cinder(self) -> dict[str, types.ModuleType]:
        names = (
            "cinderclient",
            "cinderclient.api_versions",
            "cinderclient.apiclient",
            "cinderclient.apiclient.exceptions",
            "cinderclient.exceptions",
            "cinderclient.v3",
            "cinderclient.v3.client",
            "os_brick",
            "os_brick.initiator",
            "os_brick.initiator.connector",
            "oslo_privsep",
            "oslo_privsep.priv_context",
        )
        modules = {name: _module(name) for name in names}
        for name, module in modules.items():
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(modules[parent], own, module)
        errors = modules["cinderclient.exceptions"]
        errors.ClientException = _error("ClientException", Exception, errors.__name__)
        codes = {"BadRequest": 400, "Forbidden": 403, "NotFound": 404, "OverLimit": 413}
        for name, code in codes.items():
            error = _error(name, errors.ClientException, errors.__name__)
            error.code = code  # type: ignore[attr-defined] # the client's own has it too
            setattr(errors, name, error)
        below = modules["cinderclient.apiclient.exceptions"]
        below.InternalServerError = _error("InternalServerError", Exception, below.__name__)
        modules["cinderclient.api_versions"].APIVersion = str
        modules["os_brick"].setup = lambda _conf: None
        note = self._note

        class Volumes:
            def delete(self, volume_id: str) -> None:
                note(volume_id)
                for start, error in {
                    "b5": errors.BadRequest,  # a volume that is attached, or has snapshots
                    "40": errors.NotFound,
                    "0f": errors.OverLimit,
                    "50": errors.ClientException,
                }.items():
                    if volume_id.startswith(start):
                        raise error(f"volume {volume_id}")

        class Client:
            def __init__(self, **_fields: object) -> None:
                self.volumes = Volumes()
                self.client = types.SimpleNamespace(management_url="http://cinder")

        modules["cinderclient.v3.client"].Client = Client
        return modules


class _Resource:
    """Something to be used in a with statement."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _module(name: str) -> Any:
    return types.ModuleType(name)


def _error(name: str, base: type, module: str) -> type:
    return type(name, (base,), {"__module__": module})


def put_on_path(libraries: FakeLibraries, directory: Path) -> str:
    """Write modules into a folder that give a process the libraries; returns its PYTHONPATH."""
    text = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.functional.store_servers import FakeLibraries\n"
        f"sys.modules.update(FakeLibraries(Path({str(libraries.record)!r})).modules())\n"
    )
    for name in libraries.modules():
        if "." not in name:
            (directory / f"{name}.py").write_text(text)
    return f"{directory}{os.pathsep}{REPOSITORY}"


# -- the servers' processes


def _memory(_directory: Path) -> Application:
    return MemoryS3()


def _moto(_directory: Path) -> Application:
    server = importlib.import_module("moto.server")
    application: Application = server.DomainDispatcherApplication(server.create_backend_app)
    return application


def _serve(application: Application, port: int) -> None:
    wsgi = importlib.import_module("cheroot.wsgi")
    server = wsgi.Server(("127.0.0.1", port), Front(application), numthreads=64)
    try:
        server.start()
    finally:
        server.stop()


@dataclass
class _Swift:
    """OpenStack's Swift, its four servers in one process, with one replica of everything."""

    directory: Path
    port: int

    KINDS: ClassVar[tuple[str, ...]] = ("account", "container", "object")

    def serve(self) -> None:
        importlib.import_module("eventlet").monkey_patch()
        # Its parts are imported after that.
        green = importlib.import_module("eventlet.wsgi")
        hub = importlib.import_module("eventlet")
        listening = {kind: hub.listen(("127.0.0.1", 0)) for kind in self.KINDS}
        self._write({kind: listener.getsockname()[1] for kind, listener in listening.items()})
        utils = importlib.import_module("swift.common.utils")
        for name in ("utils", "utils.config", "storage_policy"):
            module: Any = importlib.import_module(f"swift.common.{name}")
            if hasattr(module, "SWIFT_CONF_FILE"):
                module.SWIFT_CONF_FILE = str(self.directory / "swift.conf")
        utils.validate_hash_conf()
        importlib.import_module("swift.common.storage_policy").reload_storage_policies()
        loader = importlib.import_module("swift.common.wsgi")
        protocol = importlib.import_module("swift.common.http_protocol").SwiftHttpProtocol
        quiet = utils.get_logger({}, log_route="swift")
        for kind, listener in listening.items():
            application = loader.loadapp(str(self.directory / f"{kind}.conf"))
            hub.spawn(green.server, listener, application, quiet, protocol=protocol)
        proxy = loader.loadapp(str(self.directory / "proxy.conf"))
        green.server(hub.listen(("127.0.0.1", self.port)), Front(proxy), quiet, protocol=protocol)

    def _write(self, ports: Mapping[str, int]) -> None:
        (self.directory / "devices" / "d1").mkdir(parents=True)
        rings = importlib.import_module("swift.common.ring")
        for kind, port in ports.items():
            builder = rings.RingBuilder(4, 1, 1)
            device = {"id": 0, "region": 1, "zone": 1, "weight": 1, "device": "d1"}
            address = {"ip": "127.0.0.1", "port": port}
            replication = {"replication_ip": "127.0.0.1", "replication_port": port}
            builder.add_dev({**device, **address, **replication, "meta": ""})
            builder.rebalance()
            builder.get_ring().save(str(self.directory / f"{kind}.ring.gz"))
            (self.directory / f"{kind}.conf").write_text(
                f"[DEFAULT]\ndevices = {self.directory}/devices\nmount_check = false\n"
                f"swift_dir = {self.directory}\n[pipeline:main]\npipeline = server\n"
                f"[app:server]\nuse = egg:swift#{kind}\n"
            )
        (self.directory / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n"
        )
        (self.directory / "proxy.conf").write_text(
            f"[DEFAULT]\nswift_dir = {self.directory}\n"
            "[pipeline:main]\npipeline = keystone cache tempauth dlo slo server\n"
            "[filter:keystone]\npaste.filter_factory = tests.functional.store_servers:keystone\n"
            "[filter:cache]\npaste.filter_factory = tests.functional.store_servers:memory_cache\n"
            f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = {URL_KEY} .admin\n"
            "[filter:slo]\nuse = egg:swift#slo\n[filter:dlo]\nuse = egg:swift#dlo\n"
            "[app:server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        )


class _Cache:
    """What Swift asks of memcached."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, **_: object) -> Any:
        return self._values.get(key)

    def set(self, key: str, value: object, **_: object) -> None:
        self._values[key] = value

    def delete(self, key: str, **_: object) -> None:
        self._values.pop(key, None)


def memory_cache(_global_conf: object, **_conf: str) -> Callable[[Application], Application]:
    """Make a filter of Swift's that remembers tokens without a memcached."""
    cache = _Cache()

    def wrap(behind: Application) -> Application:
        def application(
            environ: dict[str, Any], start_response: Callable[..., Any]
        ) -> Iterable[bytes]:
            environ["swift.cache"] = cache
            return behind(environ, start_response)

        return application

    return wrap


def keystone(_global_conf: object, **_conf: str) -> Callable[[Application], Application]:
    """Make a filter that gives Swift's own tokens as Keystone would."""

    def wrap(behind: Application) -> Application:
        def application(
            environ: dict[str, Any], start_response: Callable[..., Any]
        ) -> Iterable[bytes]:
            if environ["PATH_INFO"] != "/v3/auth/tokens":
                return behind(environ, start_response)
            length = int(environ["CONTENT_LENGTH"])
            given = json.loads(environ["wsgi.input"].read(length))
            password = given["auth"]["identity"]["password"]["user"]["password"]
            granted: dict[str, str] = {}
            inner = {
                **environ,
                "PATH_INFO": "/auth/v1.0",
                "REQUEST_METHOD": "GET",
                "CONTENT_LENGTH": "0",
                "HTTP_X_STORAGE_USER": "test:tester",
                "HTTP_X_STORAGE_PASS": password,
            }
            statuses = []

            def started(status: str, headers: list[Any], *_: object) -> None:
                statuses.append(status)
                granted.update(headers)

            for _ in behind(inner, started):
                pass
            if not statuses[0].startswith("200"):
                start_response("401 Unauthorized", [("Content-Length", "0")])
                return []
            endpoint = {"id": "1", "interface": "public", "region": "r", "region_id": "r"}
            endpoint["url"] = f"http://{environ['HTTP_HOST']}/v1/{SWIFT_ACCOUNT}"
            body = {
                "token": {
                    "methods": ["password"],
                    "user": {"id": "u", "name": "tester", "domain": {"id": "default"}},
                    "project": {"id": "p", "name": "test", "domain": {"id": "default"}},
                    "issued_at": "2026-01-01T00:00:00.000000Z",
                    "expires_at": "2100-01-01T00:00:00.000000Z",
                    "catalog": [
                        {
                            "id": "1",
                            "type": "object-store",
                            "name": "swift",
                            "endpoints": [endpoint],
                        }
                    ],
                }
            }
            token = ("X-Subject-Token", granted["X-Auth-Token"])
            start_response("201 Created", [("Content-Type", "application/json"), token])
            return [json.dumps(body).encode()]

        return application

    return wrap


def _main(kind: str, port: int, directory: Path) -> None:
    if kind == "swift":
        _Swift(directory, port).serve()
    else:
        _serve({"memory": _memory, "moto": _moto}[kind](directory), port)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
