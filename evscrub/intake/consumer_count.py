# SPDX-License-Identifier: Apache-2.0
"""Count the agents by the consumers that the broker has for them.

An agent consumes one message queue or several; the broker tells how many consumers each of them
has. That includes agents of other hosts, and agents that stopped without a word until their
connection is closed. A service that reads the same queue counts as an agent.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
from amqp import Connection
from amqp import exceptions as amqp_errors
from oslo_config import cfg
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.intake import amqp
from evscrub.telemetry.log_limit import LogLimit

LOG = logging.getLogger(__name__)

#: Time between two readings, and before the brokers are tried again.
INTERVAL_SECONDS = 5.0
#: A reading is used for this long.
VALID_SECONDS = 20.0

_STOP_SECONDS = 1.0
_REMIND_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the broker said.

    :param agents: None if it did not tell.
    :param at: when it was asked, seconds since boot.
    """

    agents: int | None
    at: float


class ConsumerCount:
    """Keep track of how many agents consume from the bus.

    A daemon thread reads it, on one connection that is kept, because a broker that does not answer
    blocks its client. If a broker fails, the next one of the bus's URL is used.

    :param conf: a configuration whose bus may be any; only RabbitMQ tells.
    :param clock: this host's clocks.
    """

    def __init__(self, conf: cfg.ConfigOpts, clock: Clock) -> None:
        self._clock = clock
        self._of_an_agent = amqp.consumers_of_an_agent(conf.listener)
        try:
            self._brokers = amqp.configured(conf).brokers
        except ValueError:
            self._brokers = ()  # the listener reports it
        self._reading = _Reading(None, clock.boot())
        self._limit = LogLimit(_REMIND_SECONDS)
        self._stop = threading.Event()

    @property
    def count(self) -> int | None:
        """How many agents consume, 0 included; None if that is not known. Thread-safe.

        It is not known if the bus is not RabbitMQ, if no broker answered in the last 20 seconds,
        or if the last answer was that a queue does not exist or is not this user's to see.
        """
        reading = self._reading
        if self._clock.boot() - reading.at > VALID_SECONDS:
            return None
        return reading.agents

    async def run(self) -> None:
        """Read the count until cancelled; return at once if the bus is not RabbitMQ.

        Ending takes at most a second, whatever the brokers do.
        """
        if not self._brokers:
            return
        thread = threading.Thread(target=self._work, name="consumer count", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._stop.set()
            with anyio.move_on_after(_STOP_SECONDS, shield=True):
                await anyio.to_thread.run_sync(
                    thread.join,
                    _STOP_SECONDS,
                    abandon_on_cancel=True,
                    limiter=anyio.CapacityLimiter(1),
                )

    def _work(self) -> None:
        while not self._stop.is_set():
            for broker in self._brokers:
                try:
                    with amqp.connection(broker) as connection:
                        self._follow(connection)
                except Exception as error:  # noqa: BLE001 - a broken answer can raise any error
                    # The listener reports that the bus is away.
                    LOG.debug(
                        "Cannot read the number of consumers from %s: %s",
                        broker,
                        amqp.reason(error),
                    )
                if self._stop.is_set():
                    return
            self._stop.wait(INTERVAL_SECONDS)

    def _follow(self, connection: Connection) -> None:
        """Read the count until the agent stops or the connection fails."""
        while not self._stop.is_set():
            at = self._clock.boot()
            try:
                self._reading = _Reading(count_agents(connection, self._of_an_agent), at)
                self._limit.reset()
            except amqp_errors.ChannelError as error:
                self._reading = _Reading(None, at)
                self._tell(at, error)
            self._stop.wait(INTERVAL_SECONDS)

    def _tell(self, now: float, error: Exception) -> None:
        # A missing queue is made by the first agent that listens.
        if not isinstance(error, amqp_errors.NotFound) and self._limit.allows(now):
            LOG.warning(
                "RabbitMQ does not tell how many consumers %s has (%s): give the user of"
                " transport_url the configure, write and read permissions on it; logged once an"
                " hour",
                " or ".join(self._of_an_agent),
                amqp.reason(error),
            )


def count_agents(connection: Connection, of_an_agent: Mapping[str, int]) -> int:
    """Return how many agents consume all of an agent's queues.

    An agent that is just starting counts if it has begun to consume.

    :param of_an_agent: how many consumers an agent has on each of its queues, see
        :func:`evscrub.intake.amqp.consumers_of_an_agent`.
    :raises NotFound: a queue does not exist.
    :raises ChannelError: the broker refuses to tell.
    :raises AMQPError: see :data:`evscrub.intake.amqp.ERRORS`.
    """
    agents: list[int] = []
    with amqp.channel(connection) as channel:
        for queue, consumers in of_an_agent.items():
            found = channel.queue_declare(queue, passive=True).consumer_count
            agents.append(-(-found // consumers))
    return min(agents)
