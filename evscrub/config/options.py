# SPDX-License-Identifier: Apache-2.0
"""Options: their groups, defaults, bounds and help.

Each option has a type of :mod:`evscrub.config.option_types`, or a type of oslo.config without an
undefined value.
"""

import copy
from collections.abc import Sequence

from oslo_config import cfg, types

from evscrub.config.option_types import (
    BackendUrl,
    EncryptionKey,
    Float,
    GroupName,
    Integer,
    ListenAddress,
    Name,
    Names,
    Networks,
    OptionalName,
    Paths,
    Rate,
    StorePlace,
)

DEFAULT_GLANCE_CONFIG_FILE = "/etc/glance/glance-api.conf"

_DAY = 86_400
_YEAR = 365 * _DAY

bootstrap_opts = [
    cfg.Opt(
        "glance_config_files",
        type=Paths(),
        default=[DEFAULT_GLANCE_CONFIG_FILE],
        help="Glance's own configuration files, comma-separated, read in this order before"
        " evscrub's files; a folder stands for the files in it whose names end in .conf, in the"
        " order of their names, without those that are evscrub's. They define the database, the"
        " message bus and the stores, so that these are configured in one place. An option"
        " that evscrub.conf sets as well takes its value from there. Logging options and"
        " options that evscrub does not know are ignored in these files. By default"
        " /etc/glance/glance-api.conf is read if it exists."
        " The word none reads no file: evscrub.conf must then define the database, the bus and"
        " the stores itself.",
    ),
]

glance_opts = [
    cfg.Opt(
        "scrub_time",
        type=Integer(0, 100 * _YEAR),
        default=0,
        mutable=True,
        help="Time in seconds that the data of a deleted image is kept, counted from deleted_at in"
        " the registry. It is the same option as Glance's. The default of 0 deletes the data"
        " at once; a warning is logged if no file sets the option while delayed_delete is on."
        " A longer time leaves more time to restore an image and takes more space. Keep it"
        " well below the age given to 'glance-manage db purge', which removes rows even if"
        " their data still exists. Set it to the same value for all agents: where values"
        " differ, the shortest applies.",
    ),
    cfg.BoolOpt(
        "delayed_delete",
        default=False,
        help="Glance's option: whether a DELETE leaves an image in pending_delete. If it is off,"
        " as it is by default, there is nothing to scrub: an agent warns, and 'evscrub check'"
        " fails.",
    ),
    cfg.Opt(
        "enabled_backends",
        type=types.Dict(Name()),
        default={},
        help="Glance's option: the stores of a multi-store Glance, as comma-separated name:type"
        " pairs. Each store has a group of the same name with its driver's options. Empty, the"
        " default, means a single store, which is configured in [glance_store].",
    ),
    cfg.Opt(
        "metadata_encryption_key",
        type=EncryptionKey(),
        secret=True,
        help="Glance's option: the AES key of encrypted location URLs, 16, 24 or 32 bytes. Unset"
        " by default: URLs are not encrypted. It must be the key that Glance uses, or"
        " locations are parked as undecipherable.",
    ),
    cfg.ListOpt(
        "disabled_notifications",
        default=[],
        help="Glance's option: the notifications that Glance does not send, none by default. Only"
        " 'evscrub check' reads it, because evscrub depends on image.delete.",
    ),
]

listener_opts = [
    cfg.Opt(
        "topics",
        type=Names(),
        default=["evscrub"],
        help="Topics to receive Glance's notifications from, comma-separated. Use a topic that no"
        " other service consumes, and add it to [oslo_messaging_notifications] topics in"
        " glance-api.conf. Services that consume the same topic without a pool, such as"
        " Ceilometer, take each other's messages.",
    ),
    cfg.Opt(
        "exchange",
        type=Name(),
        default="glance",
        help="Exchange that Glance publishes notifications to: the value of control_exchange in"
        " glance-api.conf.",
    ),
    cfg.Opt(
        "pool",
        type=OptionalName(),
        help="Name of a listener pool; unset by default. Use it only if evscrub cannot have its"
        " own topic: all agents of a pool share one copy of each message. The pool's queue"
        " outlives the agents and grows while none of them runs, until it is deleted in the"
        " broker.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(1, 10_000),
        default=200,
        help="Largest number of notifications received as one batch. Larger batches are faster"
        " when many images are deleted at once; each batch is acknowledged as a whole.",
    ),
    cfg.Opt(
        "batch_timeout",
        type=Float(0.001, 60),
        default=0.05,
        help="Time in seconds to wait for a batch to fill. It delays the scrubbing of an image by"
        " up to this time if scrub_time is 0.",
    ),
]

queue_opts = [
    cfg.Opt(
        "max_entries",
        type=Integer(1, (1 << 24) - 1),
        default=1_000_000,
        help="Largest number of images queued in memory, about 150 bytes each. When the queue is"
        " full, the images that are due last are dropped; a full sweep queues them again"
        " before they are due. Notifications may fill three quarters of the queue; the rest is"
        " reserved for images that sweeps find.",
    ),
]

scrubber_opts = [
    cfg.Opt(
        "concurrency",
        type=Integer(1, 4096),
        default=16,
        mutable=True,
        help="Largest number of images scrubbed at the same time by this agent; 1 scrubs serially."
        " The locations of one image are deleted one after another. Each image takes a thread,"
        " about 100 KB. What to weigh: a store that answers a delete in t seconds gets at most"
        " concurrency/t deletes a second. With several stores each store keeps one slot, so"
        " that a store that does not answer does not block the others. Above about 64 one"
        " agent is limited by its processor, at roughly a thousand deletes a second: run"
        " several agents instead.",
    ),
    cfg.Opt(
        "rate",
        type=Rate(),
        default=0,
        mutable=True,
        help="Largest number of delete requests a second over all stores, for each agent, or for"
        " all agents together with [coordination] backend_url. The"
        " default of 0 is no limit. Set it below what the backend can serve beside its users,"
        " because users decide how fast images are deleted.",
    ),
    cfg.Opt(
        "burst",
        type=Float(1, Rate.HIGHEST),
        default=1,
        mutable=True,
        help="Number of delete requests that may be sent at once after idle time, in addition to"
        " the steady rate. With the default of 1 each request waits for its own turn, and a"
        " turn that the agent is late for is lost. For a rate of 50 a second or more, set it"
        " to about a tenth of the rate.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(1, 1000),
        default=100,
        mutable=True,
        help="Largest number of images claimed in one database transaction; fewer are claimed"
        " while stores are slow. Larger batches take fewer transactions but hold row locks"
        " longer.",
    ),
    cfg.Opt(
        "claim_timeout",
        type=Integer(10, _DAY),
        default=120,
        help="Time in seconds without a renewal after which a claim expires and another agent"
        " takes it over. A running agent renews its claims. A longer time delays the images of"
        " an agent that died; a shorter time lets claims expire on an agent under load. Set it"
        " to the same value for all agents. Leases are compared by the clock of the database"
        " node that answers, so the clocks of all nodes must agree within 2 seconds: an agent"
        " claims nothing on a node that is off by more.",
    ),
    cfg.Opt(
        "drain_timeout",
        type=Integer(0, _DAY),
        default=30,
        help="Time in seconds that running deletes may take when the agent is stopped. Deletes"
        " that take longer are abandoned, and another agent takes their claims over once they"
        " expire. Set it below the stop timeout of the service manager.",
    ),
    cfg.Opt(
        "store_concurrency",
        type=types.Dict(Integer(1, 4096)),
        default={},
        mutable=True,
        help="Largest number of images scrubbed at the same time in a store, as comma-separated"
        " store:number pairs, within concurrency. Stores are named as in enabled_backends, or"
        " by their type if there is a single store. Empty, the default, sets no limit by"
        " store. Example: fast:64,archive:4",
    ),
    cfg.Opt(
        "store_rate",
        type=types.Dict(Rate()),
        default={},
        mutable=True,
        help="Largest number of delete requests a second to a store, as comma-separated store:rate"
        " pairs, within rate. Empty, the default, sets no limit by store. evscrub slows down"
        " further by itself when a store throttles. Example: archive:5",
    ),
    cfg.Opt(
        "owner_rate",
        type=Rate(),
        default=0,
        mutable=True,
        help="Largest number of images of one owner scrubbed a second. The default of 0 is no"
        " limit. Owners take turns without it; a limit keeps one owner from using the whole"
        " capacity while no other owner waits. The owner comes from the registry, so with a"
        " single store each image is read once more before it is claimed.",
    ),
    cfg.BoolOpt(
        "shared_concurrency",
        default=False,
        mutable=True,
        help="Whether concurrency and store_concurrency also hold for all agents of a group"
        " together, see [coordination] backend_url; off by default, when they hold for each agent."
        " Each agent may always scrub one image at a time. Turn it on if the backend bears only so"
        " many requests at once.",
    ),
    cfg.Opt(
        "not_found_limit",
        type=Integer(0, 1_000_000),
        default=20,
        mutable=True,
        help="Number of images in a row whose data a store without any active image may lack"
        " before the store is paused: an unmounted file store or a wrong bucket lacks all"
        " data. While other projects have images in the store, the images of one project count"
        " for half of the limit at most. If the store should have active images, evscrub asks"
        " for some of them instead, and pauses the store at the first missing image if none is"
        " there; if only an old one is absent, data that is older than the others is counted"
        " too. 0 turns all checks off: all missing data is taken as deleted. A higher limit needs"
        " more missing images before a wrong store is noticed.",
    ),
    cfg.ListOpt(
        "acknowledged_stores",
        default=[],
        mutable=True,
        help="Stores whose missing data is taken as deleted without a check for an active image,"
        " not_found_limit or a look at their directories; none by default. Name a store here,"
        " and send SIGHUP, if its data is really gone; remove the name afterwards, since a"
        " wrong store is not noticed while it is named.",
    ),
    cfg.Opt(
        "allowed_places",
        type=types.List(StorePlace()),
        default=[],
        mutable=True,
        help="Further places of stores, as comma-separated store:place pairs, for data that Glance"
        " wrote before its configuration changed; none by default. evscrub deletes data only"
        " in a store's own bucket, container, pool or directories, and in these places. A"
        " location elsewhere is parked, because a location may name anything that the store's"
        " credentials can reach. A place is a bucket (s3), a container, or"
        " tenant@host/container in an account whose credentials are not configured (swift), a"
        " pool (rbd), an absolute directory with everything below it (file), or"
        " datacenter:datastore/directory (vmware); an asterisk in a bucket, container or pool"
        " stands for any characters. What to weigh: whoever may write locations can have"
        " any data in these places deleted. Example: objects:glance-old,files:/srv/images",
    ),
    cfg.ListOpt(
        "separate_stores",
        default=[],
        mutable=True,
        help="Stores that have no object in common, comma-separated; none by default. Two s3 or"
        " swift stores with the same bucket or container name, on servers with different"
        " names, may be the same storage: a location in one of them is parked while a location"
        " of the same name in the other is in use. Name both stores here if they are separate."
        " What to weigh: if they are not, data is deleted that an image still needs.",
    ),
    cfg.Opt(
        "retry_initial",
        type=Float(0.1, _DAY),
        default=5,
        mutable=True,
        help="Largest delay in seconds before the first retry of a failed location. The limit"
        " doubles with each further failure up to retry_max, and each delay is drawn at random"
        " between 0 and the limit. A shorter delay recovers sooner; a longer one spares a"
        " store that fails.",
    ),
    cfg.Opt(
        "retry_max",
        type=Float(1, 30 * _DAY),
        default=600,
        mutable=True,
        help="Largest delay in seconds between two retries of a failed location. A longer delay"
        " spares a store that fails; a shorter one deletes sooner once the store works again.",
    ),
    cfg.Opt(
        "in_use_delay",
        type=Integer(1, 30 * _DAY),
        default=1800,
        mutable=True,
        help="Time in seconds, plus or minus a tenth, before a location is retried whose data has"
        " clones or snapshots or is otherwise in use. Each retry costs one request to the"
        " store.",
    ),
    cfg.Opt(
        "parked_delay",
        type=Integer(1, 30 * _DAY),
        default=3600,
        mutable=True,
        help="Time in seconds, plus or minus a tenth, before a parked location is retried: one"
        " that cannot be deleted until an operator acts. A shorter time notices a repair"
        " sooner and costs more claims.",
    ),
]

sweep_opts = [
    cfg.Opt(
        "interval",
        type=Integer(1, _DAY),
        default=60,
        mutable=True,
        help="Time in seconds, plus or minus a tenth, between sweeps of recent changes in the"
        " registry. An image whose notification was lost is found at most this late. Each"
        " sweep costs one query on an index.",
    ),
    cfg.Opt(
        "full_interval",
        type=Integer(10, 30 * _DAY),
        default=3600,
        mutable=True,
        help="Time in seconds between sweeps of the whole registry. Images that are due within"
        " twice this time are queued in memory; a later sweep finds those that are due later."
        " A shorter time costs more reads of the database, a longer time more memory.",
    ),
    cfg.Opt(
        "batch_size",
        type=Integer(10, 10_000),
        default=1000,
        help="Number of rows read in one query. Larger batches read the registry faster but keep a"
        " database snapshot open longer.",
    ),
    cfg.BoolOpt(
        "orphans",
        default=True,
        mutable=True,
        help="Whether to scrub orphans too: locations that were removed from a live image, once"
        " scrub_time and ten more minutes have passed. Glance leaves them pending forever.",
    ),
]

audit_opts = [
    cfg.BoolOpt(
        "notify",
        default=False,
        help="Whether to send image.scrub when the data of an image is gone, and image.scrub.error"
        " when only an operator can remove it, to the topics of [oslo_messaging_notifications]"
        " in Glance's configuration; off by default. Useful for billing and audit, at the cost"
        " of one message for each image. image.scrub.error goes to the error queues of the"
        " topics, such as notifications.error: make sure that a service consumes these queues,"
        " or limit them by a RabbitMQ policy with overflow drop-head, because they grow otherwise."
        " A message that RabbitMQ rejects, as with reject-publish, holds up those after it.",
    ),
]

coordination_opts = [
    cfg.Opt(
        "backend_url",
        type=BackendUrl(),
        secret=True,
        help="Address of the coordinator that makes all agents share one set of limits: rate,"
        " store_rate, owner_rate and burst then hold for the agents together, each of which uses an"
        " equal part. Unset by default: each agent has the limits for itself. It is a URL of tooz,"
        " as other OpenStack services have it, for instance etcd3+http://10.0.0.5:2379,"
        " redis://:password@10.0.0.5:6379, memcached://10.0.0.5:11211, or file:///var/lib/evscrub"
        " for agents on one host. It needs evscrub[coordination] to be installed. Set it to the"
        " same value for all agents, together with the same limits.",
    ),
    cfg.Opt(
        "name",
        type=GroupName(),
        default="default",
        help="Name of the Glance or its region, after which the group of agents is called"
        " evscrub.NAME. Agents of one group share their limits: set it to the same value for all"
        " agents of one Glance, and to different ones if several regions use one coordinator.",
    ),
    cfg.Opt(
        "heartbeat_interval",
        type=Float(0.1, 60),
        default=1,
        help="Time in seconds between two heartbeats, at which the other members are read too. A"
        " shorter time notices sooner who joins or leaves, and costs the coordinator more requests;"
        " their number also grows with that of the members.",
    ),
    cfg.Opt(
        "membership_timeout",
        type=Integer(3, 600),
        default=30,
        help="Time in seconds without a heartbeat after which an agent no longer counts as a"
        " member, and the others take up its share. A shorter time takes it up sooner after a"
        " crash; a longer one bridges longer interruptions. At least three times"
        " heartbeat_interval. It replaces membership_timeout in backend_url.",
    ),
    cfg.Opt(
        "expected_members",
        type=Integer(0, 1000),
        default=0,
        help="Number of agents that are meant to run. An agent that cannot reach the coordinator"
        " uses at most this part of the limits. The default of 0 is not known: such an agent"
        " divides by the consumers of the bus instead, which only RabbitMQ tells, and scrubs"
        " nothing if it has never reached the coordinator and the bus does not tell either. Set it"
        " with another bus than RabbitMQ.",
    ),
]

status_opts = [
    cfg.Opt(
        "listen",
        type=ListenAddress(),
        default="127.0.0.1:9753",
        help="Address of the HTTP status listener, as HOST:PORT. It serves a page for people at /,"
        " the same data as JSON at /status, Prometheus metrics at /metrics, and /healthz and"
        " /readyz. The word none turns it off. The listener shows no credentials, but"
        " it asks for no password and shows the ids of images and owners: bind it to a network"
        " address only if everyone who can reach it may see them. Clients can change nothing but"
        " when failed images are tried again, see retry_from. Several"
        " agents on one host need a port each, see port_offset; an agent whose port is taken logs a"
        " warning and runs without the listener.",
    ),
    cfg.Opt(
        "port_offset",
        type=Integer(0, 10_000),
        default=0,
        help="Number that is added to the port of listen, 0 by default, so that several agents on"
        " one host can read the same files. The systemd template sets it to the number of each"
        " instance by the environment variable OS_STATUS__PORT_OFFSET: with the default of listen,"
        " evscrub@1 listens on port 9754 and evscrub@2 on 9755. The sum must be a port. Where"
        " listen names port 0, which stands for any free port, nothing is added.",
    ),
    cfg.Opt(
        "retry_from",
        type=Networks(),
        default=[],
        help="Networks whose hosts may send the agent 'evscrub retry', separated by commas, such as"
        " 10.0.0.0/24; by default only programs on the agent's own host may. A retry makes failed"
        " images due earlier and deletes nothing that is not due anyway, but it asks for no"
        " password either. A proxy on the agent's host counts as that host: let it forward only"
        " GET and HEAD to the listener, unless all of its clients may retry.",
    ),
]

GROUPS: dict[str, Sequence[cfg.Opt]] = {
    "DEFAULT": glance_opts,
    "listener": listener_opts,
    "queue": queue_opts,
    "scrubber": scrubber_opts,
    "sweep": sweep_opts,
    "coordination": coordination_opts,
    "status": status_opts,
    "audit": audit_opts,
}


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Return evscrub's options by group, for oslo-config-generator."""
    groups = GROUPS | {"DEFAULT": [*bootstrap_opts, *glance_opts]}
    return [(group, copy.deepcopy(opts)) for group, opts in groups.items()]
