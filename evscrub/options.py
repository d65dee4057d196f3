# SPDX-License-Identifier: Apache-2.0
"""The options: their groups, defaults, bounds and help."""

import copy
from collections.abc import Sequence

from oslo_config import cfg, types

DEFAULT_GLANCE_CONFIG_FILE = "/etc/glance/glance-api.conf"

bootstrap_opts = [
    cfg.ListOpt(
        "glance_config_files",
        default=[DEFAULT_GLANCE_CONFIG_FILE],
        help="Glance's own configuration files, read before evscrub's, in this order. They give the"
        " database, the message bus and the stores, so that these are said in one place; whatever"
        " evscrub.conf sets itself wins. Logging options in them are ignored. Empty reads none:"
        " then evscrub.conf must hold all of it.",
    ),
]

glance_opts = [
    cfg.IntOpt(
        "scrub_time",
        default=0,
        min=0,
        max=100 * 365 * 86400,
        mutable=True,
        help="Seconds that a deleted image's data is kept, counted from deleted_at in the registry."
        " The same option as Glance's own. Longer leaves more time to restore an image and takes"
        " more space; keep it well below the age given to 'glance-manage db purge', which removes"
        " rows whether their data is gone or not.",
    ),
    cfg.BoolOpt(
        "delayed_delete",
        default=False,
        help="Glance's option: whether a DELETE leaves an image in pending_delete. Read only to"
        " warn when it is off, for then there is nothing to scrub.",
    ),
    cfg.DictOpt(
        "enabled_backends",
        default={},
        help="Glance's option: the stores of a multi-store Glance, as name:type. Each has a group"
        " of its name with the driver's options. Empty for a single store in [glance_store].",
    ),
    cfg.StrOpt(
        "metadata_encryption_key",
        secret=True,
        help="Glance's option: the key that location URLs are encrypted with, 16, 24 or 32"
        " characters. Must be Glance's, or locations are parked as undecipherable.",
    ),
]

listener_opts = [
    cfg.ListOpt(
        "topics",
        default=["evscrub"],
        help="Topics to take Glance's notifications from. Give evscrub a topic of its own and add"
        " it to [oslo_messaging_notifications] topics in glance-api.conf: who shares a topic"
        " without a pool takes messages away from the others, Ceilometer for one.",
    ),
    cfg.StrOpt(
        "exchange",
        default="glance",
        help="Exchange that Glance publishes on: its control_exchange.",
    ),
    cfg.StrOpt(
        "pool",
        help="Listener pool: where evscrub cannot have a topic of its own, agents of one pool share"
        " a copy of each message. The pool's queue stays and grows when no agent runs, until it"
        " is deleted.",
    ),
    cfg.IntOpt(
        "batch_size",
        default=200,
        min=1,
        help="Notifications taken in at once. More takes in a storm faster; each batch is"
        " acknowledged as a whole.",
    ),
    cfg.FloatOpt(
        "batch_timeout",
        default=0.05,
        min=0.001,
        help="Seconds to wait for a batch to fill. Adds to how late an image is scrubbed when"
        " scrub_time is 0.",
    ),
]

queue_opts = [
    cfg.IntOpt(
        "max_entries",
        default=1_000_000,
        min=1,
        max=(1 << 24) - 1,
        help="Images that may wait in memory, at about 150 bytes each. When it is full what is due"
        " last is dropped, and a full sweep brings it back before it is due.",
    ),
]

scrubber_opts = [
    cfg.IntOpt(
        "concurrency",
        default=16,
        min=1,
        max=4096,
        mutable=True,
        help="Images scrubbed at the same time, each by one delete after another; 1 is serial"
        " scrubbing. Each takes a thread, about 100 KB. What to weigh: a store that answers in t"
        " seconds is used at most concurrency/t times a second. Of several stores each keeps a"
        " slot, so that one that hangs does not hold up the others. Beyond 64 or so one agent is"
        " bound by its processor, at about a thousand deletes a second: start several.",
    ),
    cfg.FloatOpt(
        "rate",
        default=0,
        min=0,
        mutable=True,
        help="Delete requests a second, over all stores; 0 is no limit. Set it below what the"
        " backend allows all its users together: deleted images come as fast as tenants like.",
    ),
    cfg.FloatOpt(
        "burst",
        default=1,
        min=1,
        mutable=True,
        help="Delete requests that may go at once after a quiet time, above the steady rate. At"
        " rates of 50 and more set it to a tenth of the rate or so: with 1 every request goes by"
        " itself, and what the agent is late for one is lost for good.",
    ),
    cfg.IntOpt(
        "batch_size",
        default=100,
        min=1,
        max=1000,
        mutable=True,
        help="Images claimed in one transaction at most; fewer when the stores are slow. More"
        " takes fewer transactions and longer row locks.",
    ),
    cfg.IntOpt(
        "claim_timeout",
        default=120,
        min=10,
        help="Seconds without a sign of life after which another agent takes a claim over. Claims"
        " of a living agent are renewed. Longer leaves the images of an agent that died waiting;"
        " shorter asks more of an agent under load. The same on all agents.",
    ),
    cfg.IntOpt(
        "drain_timeout",
        default=30,
        min=0,
        help="Seconds that deletes under way get to finish when the agent is stopped. What takes"
        " longer is left to its claim running out. Keep it below the service manager's own limit.",
    ),
    cfg.Opt(
        "store_concurrency",
        type=types.Dict(types.Integer(min=1, max=4096)),
        default={},
        mutable=True,
        help="Images scrubbed at the same time in some stores, as store:number, under the"
        " concurrency of all. Stores are named as in enabled_backends, or by their type where"
        " there is a single one. Example: fast:64,archive:4",
    ),
    cfg.Opt(
        "store_rate",
        type=types.Dict(types.Float(min=0)),
        default={},
        mutable=True,
        help="Delete requests a second to some stores, as store:rate, under the rate of all."
        " Stores that throttle are slowed down below it by themselves. Example: archive:5",
    ),
    cfg.FloatOpt(
        "owner_rate",
        default=0,
        min=0,
        mutable=True,
        help="Images of one owner scrubbed a second; 0 is no limit. Owners take turns anyway; this"
        " keeps one of them from taking all there is when nobody else waits.",
    ),
    cfg.IntOpt(
        "not_found_limit",
        default=20,
        min=0,
        mutable=True,
        help="Images in a row that a store may say it does not have before it is paused, because"
        " an unmounted file store or a wrong bucket says so of everything. 0 believes any number.",
    ),
    cfg.ListOpt(
        "acknowledged_stores",
        default=[],
        mutable=True,
        help="Stores that are not paused by not_found_limit, nor for a missing or empty directory:"
        " name one here, and send SIGHUP, when its data is really gone.",
    ),
    cfg.Opt(
        "allowed_places",
        type=types.List(types.String(regex=r"[^:]+:.+", quotes=True)),
        default=[],
        mutable=True,
        help="Further places of stores, as store:place, for data that Glance wrote before its"
        " configuration changed. Data is deleted only in the store's own bucket, container, pool or"
        " directories, and here; what lies elsewhere is parked, for a location may name whatever"
        " the store's credentials reach. A place is a bucket (s3), a container, or"
        " tenant@host/container in an account whose credentials are not configured (swift), a pool"
        " (rbd), a directory with all below it (file), or datacenter:datastore/directory (vmware);"
        " buckets, containers and pools may hold *. What to weigh: all of a place may be deleted by whoever"
        " may write locations. Example: objects:glance-old,files:/srv/images",
    ),
    cfg.ListOpt(
        "separate_stores",
        default=[],
        mutable=True,
        help="Stores that have no object in common. Two s3 or swift stores with one bucket or"
        " container, on servers of different names, may be the same: a location in one of them is"
        " parked while a location of the same name in the other is wanted. Name both here if they"
        " are separate. What to weigh: if they are not, data is deleted that an image still wants.",
    ),
    cfg.FloatOpt(
        "retry_initial",
        default=5,
        min=0.1,
        mutable=True,
        help="Seconds, on average doubled for each, before a failed location is tried again;"
        " drawn at random up to that.",
    ),
    cfg.FloatOpt(
        "retry_max",
        default=600,
        min=1,
        mutable=True,
        help="Seconds between two tries at most.",
    ),
    cfg.IntOpt(
        "in_use_delay",
        default=1800,
        min=1,
        mutable=True,
        help="Seconds before a location with clones or snapshots is tried again.",
    ),
    cfg.IntOpt(
        "parked_delay",
        default=3600,
        min=1,
        mutable=True,
        help="Seconds before a location that only an operator can mend is looked at again.",
    ),
]

sweep_opts = [
    cfg.IntOpt(
        "interval",
        default=60,
        min=1,
        mutable=True,
        help="Seconds between sweeps of what changed in the registry lately: how late an image may"
        " be that the bus missed. Some jitter is added. Costs one indexed query a sweep.",
    ),
    cfg.IntOpt(
        "full_interval",
        default=3600,
        min=10,
        mutable=True,
        help="Seconds between sweeps of the whole registry. Also how far ahead images are held in"
        " memory: what is due later is found by a later sweep.",
    ),
    cfg.IntOpt(
        "batch_size",
        default=1000,
        min=10,
        max=10_000,
        help="Rows read at once. More reads faster and holds a snapshot of the database longer.",
    ),
    cfg.BoolOpt(
        "orphans",
        default=True,
        mutable=True,
        help="Whether locations that were taken off a live image are scrubbed too, scrub_time and"
        " ten minutes after. Glance leaves them pending for ever.",
    ),
]

audit_opts = [
    cfg.BoolOpt(
        "notify",
        default=False,
        help="Whether to send image.scrub when an image's data is gone, and image.scrub.error when"
        " only an operator can remove it, to the topics of [oslo_messaging_notifications] in"
        " Glance's configuration. For billing and audit; one message an image.",
    ),
]

status_opts = [
    cfg.StrOpt(
        "listen",
        default="127.0.0.1:9753",
        help="Where an agent shows its status over HTTP, as HOST:PORT: a page for people at /, its"
        " content as JSON at /status, Prometheus' metrics at /metrics, /healthz and /readyz. Empty"
        " shows nothing. It is read-only and tells no secret, but it has no password either, and"
        " names images and owners: bind it to the network only where those who reach it may know"
        " that. Several agents on one host each need a port of their own; the second one on a port"
        " warns and works without.",
    ),
]

GROUPS: dict[str, Sequence[cfg.Opt]] = {
    "DEFAULT": glance_opts,
    "listener": listener_opts,
    "queue": queue_opts,
    "scrubber": scrubber_opts,
    "sweep": sweep_opts,
    "status": status_opts,
    "audit": audit_opts,
}


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Evscrub's options, for oslo-config-generator."""
    groups = GROUPS | {"DEFAULT": [*bootstrap_opts, *glance_opts]}
    return [(group, copy.deepcopy(opts)) for group, opts in groups.items()]
