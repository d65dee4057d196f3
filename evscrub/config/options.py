# SPDX-License-Identifier: Apache-2.0
"""The options: their groups, defaults, bounds and help.

Each has a type of :mod:`evscrub.config.option_types`, or one of oslo.config's that has no undefined
value.
"""

import copy
from collections.abc import Sequence

from oslo_config import cfg, types

from evscrub.config.option_types import (
    EncryptionKey,
    Float,
    Integer,
    ListenAddress,
    Name,
    Names,
    OptionalName,
    Paths,
    Rate,
)

DEFAULT_GLANCE_CONFIG_FILE = "/etc/glance/glance-api.conf"

_DAY = 86_400
_YEAR = 365 * _DAY

bootstrap_opts = [
    cfg.Opt(
        "glance_config_files",
        type=Paths(),
        default=[DEFAULT_GLANCE_CONFIG_FILE],
        help="Glance's own configuration files, read before evscrub's, in this order. They give the"
        " database, the message bus and the stores, so that these are said in one place; whatever"
        " evscrub.conf sets itself wins. Logging options in them are ignored, and so is what"
        " evscrub does not know. The word none reads none: then evscrub.conf must hold all of it.",
    ),
]

glance_opts = [
    cfg.Opt(
        "scrub_time",
        type=Integer(0, 100 * _YEAR),
        default=0,
        mutable=True,
        help="Seconds that a deleted image's data is kept, counted from deleted_at in the registry."
        " The same option as Glance's own. 0 deletes at once; a warning says so where it is set"
        " nowhere and delayed_delete is on. Longer leaves more time to restore an image and takes"
        " more space; keep it well below the age given to 'glance-manage db purge', which removes"
        " rows whether their data is gone or not.",
    ),
    cfg.BoolOpt(
        "delayed_delete",
        default=False,
        help="Glance's option: whether a DELETE leaves an image in pending_delete. Read only to"
        " warn when it is off, for then there is nothing to scrub.",
    ),
    cfg.Opt(
        "enabled_backends",
        type=types.Dict(Name()),
        default={},
        help="Glance's option: the stores of a multi-store Glance, as name:type. Each has a group"
        " of its name with the driver's options. Empty for a single store in [glance_store].",
    ),
    cfg.Opt(
        "metadata_encryption_key",
        type=EncryptionKey(),
        secret=True,
        help="Glance's option: the key that location URLs are encrypted with, 16, 24 or 32"
        " bytes. Must be Glance's, or locations are parked as undecipherable.",
    ),
    cfg.ListOpt(
        "disabled_notifications",
        default=[],
        help="Glance's option: the notifications that it does not send. Read only by 'evscrub"
        " check', since evscrub lives on image.delete.",
    ),
]

listener_opts = [
    cfg.Opt(
        "topics",
        type=Names(),
        default=["evscrub"],
        help="Topics to take Glance's notifications from. Give evscrub a topic of its own and add"
        " it to [oslo_messaging_notifications] topics in glance-api.conf: who shares a topic"
        " without a pool takes messages away from the others, Ceilometer for one.",
    ),
    cfg.Opt(
        "exchange",
        type=Name(),
        default="glance",
        help="Exchange that Glance publishes on: its control_exchange.",
    ),
    cfg.Opt(
        "pool",
        type=OptionalName(),
        help="Listener pool: where evscrub cannot have a topic of its own, agents of one pool share"
        " a copy of each message. The pool's queue stays and grows when no agent runs, until it"
        " is deleted.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(1, 10_000),
        default=200,
        help="Notifications taken in at once. More takes in a storm faster; each batch is"
        " acknowledged as a whole.",
    ),
    cfg.Opt(
        "batch_timeout",
        type=Float(0.001, 60),
        default=0.05,
        help="Seconds to wait for a batch to fill. Adds to how late an image is scrubbed when"
        " scrub_time is 0.",
    ),
]

queue_opts = [
    cfg.Opt(
        "max_entries",
        type=Integer(1, (1 << 24) - 1),
        default=1_000_000,
        help="Images that may wait in memory, at about 150 bytes each. When it is full what is due"
        " last is dropped, and a full sweep brings it back before it is due. Notifications may fill"
        " three quarters of it; the rest is for what sweeps find.",
    ),
]

scrubber_opts = [
    cfg.Opt(
        "concurrency",
        type=Integer(1, 4096),
        default=16,
        mutable=True,
        help="Images scrubbed at the same time, each by one delete after another; 1 is serial"
        " scrubbing. Each takes a thread, about 100 KB. What to weigh: a store that answers in t"
        " seconds is used at most concurrency/t times a second. Of several stores each keeps a"
        " slot, so that one that hangs does not hold up the others. Beyond 64 or so one agent is"
        " bound by its processor, at about a thousand deletes a second: start several.",
    ),
    cfg.Opt(
        "rate",
        type=Rate(),
        default=0,
        mutable=True,
        help="Delete requests a second, over all stores; 0 is no limit. Set it below what the"
        " backend allows all its users together: deleted images come as fast as tenants like.",
    ),
    cfg.Opt(
        "burst",
        type=Float(1, Rate.HIGHEST),
        default=1,
        mutable=True,
        help="Delete requests that may go at once after a quiet time, above the steady rate. At"
        " rates of 50 and more set it to a tenth of the rate or so: with 1 every request goes by"
        " itself, and what the agent is late for one is lost for good.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(1, 1000),
        default=100,
        mutable=True,
        help="Images claimed in one transaction at most; fewer when the stores are slow. More"
        " takes fewer transactions and longer row locks.",
    ),
    cfg.Opt(
        "claim_timeout",
        type=Integer(10, _DAY),
        default=120,
        help="Seconds without a sign of life after which another agent takes a claim over. Claims"
        " of a living agent are renewed. Longer leaves the images of an agent that died waiting;"
        " shorter asks more of an agent under load. The same on all agents. Leases are compared"
        " by the clock of the database node that is asked, so the clocks of all nodes must agree"
        " within 2 seconds: an agent claims nothing on a node that is further off.",
    ),
    cfg.Opt(
        "drain_timeout",
        type=Integer(0, _DAY),
        default=30,
        help="Seconds that deletes under way get to finish when the agent is stopped. What takes"
        " longer is left to its claim running out. Keep it below the service manager's own limit.",
    ),
    cfg.Opt(
        "store_concurrency",
        type=types.Dict(Integer(1, 4096)),
        default={},
        mutable=True,
        help="Images scrubbed at the same time in some stores, as store:number, under the"
        " concurrency of all. Stores are named as in enabled_backends, or by their type where"
        " there is a single one. Example: fast:64,archive:4",
    ),
    cfg.Opt(
        "store_rate",
        type=types.Dict(Rate()),
        default={},
        mutable=True,
        help="Delete requests a second to some stores, as store:rate, under the rate of all."
        " Stores that throttle are slowed down below it by themselves. Example: archive:5",
    ),
    cfg.Opt(
        "owner_rate",
        type=Rate(),
        default=0,
        mutable=True,
        help="Images of one owner scrubbed a second; 0 is no limit. Owners take turns anyway; this"
        " keeps one of them from taking all there is when nobody else waits. The registry's owner"
        " counts, so with a single store each image is read once more before it is claimed.",
    ),
    cfg.Opt(
        "not_found_limit",
        type=Integer(0, 1_000_000),
        default=20,
        mutable=True,
        help="Images in a row that a store without any active image may lack before it is paused,"
        " because an unmounted file store or a wrong bucket lacks everything. One project's count"
        " for half at most while others have images there. Where a store has an active image, that"
        " is asked for, and the store is paused at the first image if it is not there. 0 asks"
        " nothing, and takes all that is not there for gone.",
    ),
    cfg.ListOpt(
        "acknowledged_stores",
        default=[],
        mutable=True,
        help="Stores whose missing data is taken for gone, without a proof, not_found_limit or a"
        " look at their directories: name one here, and send SIGHUP, when its data is really gone.",
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
        " buckets, containers and pools may hold *. What to weigh: whatever is in a place may be"
        " deleted by those who may write locations. Example: objects:glance-old,files:/srv/images",
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
    cfg.Opt(
        "retry_initial",
        type=Float(0.1, _DAY),
        default=5,
        mutable=True,
        help="Seconds, on average doubled for each, before a failed location is tried again;"
        " drawn at random up to that.",
    ),
    cfg.Opt(
        "retry_max",
        type=Float(1, 30 * _DAY),
        default=600,
        mutable=True,
        help="Seconds between two tries at most.",
    ),
    cfg.Opt(
        "in_use_delay",
        type=Integer(1, 30 * _DAY),
        default=1800,
        mutable=True,
        help="Seconds before a location with clones or snapshots is tried again.",
    ),
    cfg.Opt(
        "parked_delay",
        type=Integer(1, 30 * _DAY),
        default=3600,
        mutable=True,
        help="Seconds before a location that only an operator can mend is looked at again.",
    ),
]

sweep_opts = [
    cfg.Opt(
        "interval",
        type=Integer(1, _DAY),
        default=60,
        mutable=True,
        help="Seconds between sweeps of what changed in the registry lately: how late an image may"
        " be that the bus missed. Some jitter is added. Costs one indexed query a sweep.",
    ),
    cfg.Opt(
        "full_interval",
        type=Integer(10, 30 * _DAY),
        default=3600,
        mutable=True,
        help="Seconds between sweeps of the whole registry. Also how far ahead images are held in"
        " memory: what is due later is found by a later sweep.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(10, 10_000),
        default=1000,
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
        " Glance's configuration. For billing and audit; one message an image. The second goes to"
        " the topics' queues for errors, such as notifications.error: see that somebody reads them,"
        " or bound them by a policy of RabbitMQ's, for otherwise they grow.",
    ),
]

status_opts = [
    cfg.Opt(
        "listen",
        type=ListenAddress(),
        default="127.0.0.1:9753",
        help="Where an agent shows its status over HTTP, as HOST:PORT: a page for people at /, its"
        " content as JSON at /status, Prometheus' metrics at /metrics, /healthz and /readyz. The"
        " word none shows nothing. It is read-only and tells no secret, but it has no password"
        " either, and names images and owners: bind it to the network only where those who reach it"
        " may know that. Several agents on one host each need a port of their own; the second one"
        " on a port warns and works without.",
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
