# SPDX-License-Identifier: Apache-2.0
"""Checks of the message bus, RabbitMQ.

Only existing exchanges and queues are declared again, with the arguments that Glance's options
imply, so nothing is created.
"""

import shlex
from collections.abc import Collection, Mapping
from typing import Any

from amqp import Connection
from amqp import exceptions as amqp_errors
from oslo_config import cfg

from evscrub.checks import glance
from evscrub.checks.report import Findings, NotCheckedError
from evscrub.checks.subject import Subject
from evscrub.domain.words import count
from evscrub.intake import amqp
from evscrub.intake.amqp import GROUP as _RABBIT
from evscrub.intake.amqp import PRIORITY as _READ_PRIORITY

#: Glance's own topic by default; Ceilometer and others listen to it.
_SHARED_TOPIC = "notifications"
#: The priorities that Glance sends at; each makes a queue of every topic.
_PRIORITIES = ("info", "warn", "error")
#: Messages in a queue without consumers that are worth a warning.
_MANY = 1000


def brokers(subject: Subject) -> Findings:
    """Check that the brokers of the transport URL accept connections and the login."""
    found = Findings()
    glance.register(subject.conf)
    try:
        bus = amqp.configured(subject.conf)
    except ValueError as error:
        said = str(error)
        found.fail(f"{said[0].upper()}{said[1:]}.")
        return found
    if bus.kind.startswith("kombu+memory"):
        found.note("The bus is in memory, within one process.")
        return found
    if not bus.brokers:
        found.warn(f"The bus is {bus.kind}; only RabbitMQ can be checked here.")
        return found
    unreachable = []
    for broker in bus.brokers:
        try:
            with amqp.connection(broker):
                subject.broker = subject.broker or broker
        except amqp.ERRORS as error:
            unreachable.append(f"{broker} ({amqp.reason(error)})")
    if unreachable:
        tell = found.fail if subject.broker is None else found.warn
        tell(
            f"Not reachable: {'; '.join(unreachable)}. Check [DEFAULT] transport_url and"
            f" [{_RABBIT}] in glance-api.conf, the broker itself, and its user, password and"
            " virtual host."
        )
    return found


def queues(subject: Subject) -> Findings:
    """Check that existing exchanges and queues match what Glance's options declare."""
    if subject.broker is None:
        raise NotCheckedError("no RabbitMQ can be reached")
    found = Findings()
    broker, listener = subject.broker, subject.conf.listener
    if broker.options.rabbit_quorum_queue and broker.options.rabbit_ha_queues:
        found.fail(
            f"[{_RABBIT}] rabbit_quorum_queue and rabbit_ha_queues are both on: set the latter to"
            " False in glance-api.conf and restart glance-api."
        )
        return found
    with amqp.connection(broker) as connection:
        _check_exchange(found, connection, broker.options, listener.exchange)
        for name, consumers in amqp.consumers_of_an_agent(listener).items():
            _check_queue(found, connection, broker.options, name, consumers)
    if _SHARED_TOPIC in listener.topics and not listener.pool:
        found.warn(
            f"evscrub listens to the topic {_SHARED_TOPIC}, which other services such as Ceilometer"
            " may read too: each of them then gets only some of the messages. Give evscrub a topic"
            " of its own: set it as [listener] topics in evscrub.conf, and add it to"
            " [oslo_messaging_notifications] topics in glance-api.conf."
        )
    return found


def unread(subject: Subject) -> Findings:
    """Check that each queue that Glance's notifications create has a consumer."""
    if subject.broker is None:
        raise NotCheckedError("no RabbitMQ can be reached")
    found = Findings()
    broker, listener = subject.broker, subject.conf.listener
    glance.register(subject.conf)
    topics = list(subject.conf.oslo_messaging_notifications.topics)
    # The previous check covers these; an agent that starts later reads them.
    ours = set() if listener.pool else {f"{topic}.{_READ_PRIORITY}" for topic in listener.topics}
    names = {f"{topic}.{priority}": topic for topic in topics for priority in _PRIORITIES}
    waiting: dict[str, dict[str, int]] = {}  # messages by queue by topic
    looked_at = 0
    with amqp.connection(broker) as connection:
        for name in (name for name in names if name not in ours):
            try:
                with amqp.channel(connection) as channel:
                    queue = channel.queue_declare(name, passive=True)
            except amqp_errors.NotFound:
                continue
            except amqp.ERRORS as error:
                found.warn(_refused("queue", name, error))
                continue
            looked_at += 1
            if queue.message_count and not queue.consumer_count:
                waiting.setdefault(names[name], {})[name] = queue.message_count
    for topic, queues in waiting.items():
        found.warn(_nobody_reads(topic, queues, listener.topics, broker.virtual_host))
    if not found.code:
        others = count(looked_at, "other queue")
        found.note(
            f"Found {others} of Glance's topics, none of them unread."
            if looked_at
            else "Glance's topics have no other queue."
        )
    return found


def _nobody_reads(
    topic: str, queues: Mapping[str, int], our_topics: Collection[str], virtual_host: str | None
) -> str:
    """Describe a topic's queues that nobody reads, and what to do.

    :param queues: the number of messages in each queue.
    """
    said = " and ".join(
        f"{name}, where {count(messages, 'message waits', 'messages wait')}"
        for name, messages in queues.items()
    )
    if topic in our_topics:
        return (
            f"Nobody reads {said}. evscrub reads only the priority {_READ_PRIORITY}: limit that"
            " queue with a RabbitMQ policy for max-length or message-ttl."
        )
    place = f" -p {shlex.quote(virtual_host)}" if virtual_host else ""
    deletions = "; ".join(f"rabbitmqctl{place} delete_queue {name}" for name in queues)
    return (
        f"Nobody reads {said}. Unless the consumer is only away for a moment, remove {topic} from"
        f" [{glance.NOTIFICATIONS}] topics in glance-api.conf, restart glance-api, and delete what"
        f" is left: {deletions}."
    )


def _check_exchange(
    found: Findings, connection: Connection, options: cfg.ConfigOpts.GroupAttr, name: str
) -> None:
    try:
        with amqp.channel(connection) as channel:
            channel.exchange_declare(name, "topic", passive=True)
    except amqp_errors.NotFound:
        found.note(
            f"The exchange {name} does not exist yet: Glance's first notification creates it."
        )
        return
    except amqp.ERRORS as error:
        found.fail(_refused("exchange", name, error))
        return
    try:
        with amqp.channel(connection) as channel:
            channel.exchange_declare(
                name, "topic", durable=_durable(options), auto_delete=options.amqp_auto_delete
            )
    except amqp.ERRORS as error:
        found.fail(_refused("exchange", name, error))


def _check_queue(
    found: Findings,
    connection: Connection,
    options: cfg.ConfigOpts.GroupAttr,
    name: str,
    consumers_of_an_agent: int,
) -> None:
    try:
        with amqp.channel(connection) as channel:
            queue = channel.queue_declare(name, passive=True)
    except amqp_errors.NotFound:
        found.note(
            f"The queue {name} does not exist yet: the first agent or notification creates it."
        )
        return
    except amqp.ERRORS as error:
        found.fail(_refused("queue", name, error))
        return
    try:
        with amqp.channel(connection) as channel:
            channel.queue_declare(
                name,
                durable=_durable(options),
                auto_delete=options.amqp_auto_delete,
                arguments=_arguments(options),
            )
    except amqp.ERRORS as error:
        found.fail(_refused("queue", name, error))
        return
    said = f"{name}: {count(queue.message_count, 'message')}, " + (
        f"{count(queue.consumer_count, 'consumer')}. Each agent is"
        f" {'one' if consumers_of_an_agent == 1 else consumers_of_an_agent}; if there are more"
        " consumers than that, another service takes some of the messages."
        if queue.consumer_count
        else "no agent listening."
    )
    if queue.message_count >= _MANY and not queue.consumer_count:
        found.warn(
            f"{said} The queue grows until one does; start an agent, or remove the topic from"
            " Glance's topics and delete the queue."
        )
    else:
        found.note(said)


def _refused(kind: str, name: str, error: Exception) -> str:
    if isinstance(error, amqp_errors.PreconditionFailed):
        return (
            f"The {kind} {name} is of another type than Glance's options declare"
            f" ({amqp.reason(error)}). Use the same [{_RABBIT}] amqp_durable_queues,"
            " amqp_auto_delete and rabbit_quorum_* for evscrub and every Glance; if they are the"
            f" same, delete the {kind} in RabbitMQ and restart them, which creates it again."
        )
    if isinstance(error, amqp_errors.AccessRefused):
        return (
            f"RabbitMQ refuses the {kind} {name} ({amqp.reason(error)}). Give the user of"
            " transport_url the configure, write and read permissions on it: rabbitmqctl"
            " set_permissions."
        )
    return f"The {kind} {name} cannot be inspected ({amqp.reason(error)})."


def _durable(options: cfg.ConfigOpts.GroupAttr) -> bool:
    return bool(options.amqp_durable_queues or options.rabbit_quorum_queue)


def _arguments(options: cfg.ConfigOpts.GroupAttr) -> dict[str, Any]:
    """Return the arguments with which oslo.messaging declares a notification queue."""
    arguments: dict[str, Any] = {}
    if options.rabbit_ha_queues:
        arguments["x-ha-policy"] = "all"
    if options.rabbit_quorum_queue:
        arguments["x-queue-type"] = "quorum"
        limits = {
            "x-delivery-limit": options.rabbit_quorum_delivery_limit,
            "x-max-in-memory-length": options.rabbit_quorum_max_memory_length,
            "x-max-in-memory-bytes": options.rabbit_quorum_max_memory_bytes,
        }
        arguments |= {name: limit for name, limit in limits.items() if limit}
    return arguments
