# SPDX-License-Identifier: Apache-2.0
"""Read the options of stores that determine their objects, as the drivers read them."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from evscrub.domain.location_urls import KINDS, service
from evscrub.domain.object_identity import StoreConfig, account

LOG = logging.getLogger(__name__)

#: The group of a single store, and the group of defaults for several stores.
SINGLE_GROUP = "glance_store"
_SHARED_GROUP = "backend_defaults"

Option = Callable[[str], Any]


def read(
    conf: cfg.ConfigOpts, store: str, kind: str, group: str, url_prefix: str | None
) -> StoreConfig:
    """Return the configuration of a store; wrong values are ignored.

    :param store: name of the store.
    :param kind: a scheme of its driver, such as ``s3+https``.
    :param group: name of the group with its options.
    :param url_prefix: ``url_prefix`` of its driver, None if it is not loaded. Only the id of the
        Ceph cluster is read from it.
    """
    known = KINDS.get(kind)
    name = known.name if known is not None else kind
    reader = _READERS.get(name)
    if reader is None:
        return StoreConfig(store, name, backend=f"store {store}")

    def option(option_name: str) -> Any:  # noqa: ANN401 - options have different types
        return _option(conf, group, option_name)

    values = reader(option, url_prefix)
    if name == "swift":
        values["accounts"] = _accounts(conf, None if group == SINGLE_GROUP else group)
    return StoreConfig(store, name, **values)


def _option(conf: cfg.ConfigOpts, group: str, name: str) -> Any:  # noqa: ANN401 - as above
    for place in (group, _SHARED_GROUP):
        try:
            value = conf[place][name]
        except (cfg.Error, ValueError, KeyError):
            continue
        if value is not None:
            return value
        if group == SINGLE_GROUP:
            break
    return None


def datadirs(option: Option) -> tuple[str, ...]:
    """Return a file store's directories, as its driver reads them from its two options.

    :param option: returns the value of an option by its name.
    """
    single, several = option("filesystem_store_datadir"), option("filesystem_store_datadirs") or ()
    # An entry of filesystem_store_datadirs may end in ":PRIORITY".
    found = [entry.rsplit(":", 1)[0].strip() for entry in several]
    return tuple(entry for entry in (single, *found) if entry)


def _file(option: Option, _url_prefix: str | None) -> dict[str, Any]:
    return {"places": tuple(entry.rstrip("/") or "/" for entry in datadirs(option))}


def _s3(option: Option, _url_prefix: str | None) -> dict[str, Any]:
    host, bucket = option("s3_store_host"), option("s3_store_bucket")
    # The driver adds http:// to a host without a scheme.
    endpoint = host if not host or "://" in host else f"http://{host}"
    return {
        "backend": service(endpoint) if endpoint else None,
        "places": (bucket,) if bucket else (),
        "authority": service(endpoint) if endpoint else "",
    }


def _swift(option: Option, _url_prefix: str | None) -> dict[str, Any]:
    endpoint, container = option("swift_store_endpoint"), option("swift_store_container")
    return {
        "backend": service(endpoint) if endpoint else None,
        "places": (container,) if container else (),
        "region": option("swift_store_region") or "",
    }


def _accounts(conf: cfg.ConfigOpts, group: str | None) -> dict[str, str]:
    """Return the Swift accounts of the credentials in the store's options or their file."""
    # Not imported here: an import without swiftclient would be cached, and the driver could not be
    # loaded after swiftclient is installed.
    utils: Any = sys.modules.get("glance_store._drivers.swift.utils")
    if utils is None:
        return {}
    try:
        params: Mapping[str, Mapping[str, str | None]]
        params = utils.SwiftParams(conf, backend=group).params or {}
    except Exception as error:  # noqa: BLE001 - the driver reports the same problem
        LOG.debug("Cannot read Swift accounts: %s", type(error).__name__)
        return {}
    found = {}
    for reference, values in params.items():
        user = values.get("user") or f"{values.get('application_credential_id')}:"
        name = account(user, values.get("auth_address") or "")
        if name is not None:
            found[reference] = name
    return found


def _rbd(option: Option, url_prefix: str | None) -> dict[str, Any]:
    pool = option("rbd_store_pool")
    cluster = (url_prefix or "").removeprefix("rbd://").partition("/")[0]
    return {
        "backend": f"fsid {cluster}" if cluster else f"file {option('rbd_store_ceph_conf')}",
        "default_place": pool,
        "places": (pool,) if pool else (),
        "authority": cluster,
    }


def _vmware(option: Option, _url_prefix: str | None) -> dict[str, Any]:
    host, folder = option("vmware_server_host"), option("vmware_store_image_dir") or ""
    places = []
    for entry in option("vmware_datastores") or ():
        center, datastore = [*entry.rsplit(":", 2), ""][:2]
        places.append(f"{center.strip().strip('/')}:{datastore.strip()}/{folder.strip('/')}")
    return {"backend": service(host) if host else None, "places": tuple(places)}


def _unique(_option: Option, _url_prefix: str | None) -> dict[str, Any]:
    return {"backend": ""}


_READERS: Mapping[str, Callable[[Option, str | None], dict[str, Any]]] = {
    "cinder": _unique,
    "file": _file,
    "http": _unique,
    "rbd": _rbd,
    "s3": _s3,
    "swift": _swift,
    "vmware": _vmware,
}
