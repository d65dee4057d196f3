# SPDX-License-Identifier: Apache-2.0
"""Run the demo from setup to cleanup, and return an exit code."""

import logging
import secrets
import signal
from dataclasses import dataclass

import anyio
from rich.console import Console

from evscrub.demo.images import Fate, plan
from evscrub.demo.play import DemoError, Play
from evscrub.demo.report import print_commands, report, title
from evscrub.demo.show import display_for
from evscrub.demo.stage import Stage
from evscrub.domain.clock import Clock
from evscrub.domain.refusals import CannotRunError
from evscrub.telemetry import output, redact
from evscrub.telemetry.statistics import Scrubbed

LOG = logging.getLogger(__name__)

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
#: Lowest rate, and seconds in which all deletes are done: slow enough to watch the mass deletion.
_RATE, _RATE_PART = 8.0, 6.0
_POLL_SECONDS = 0.25


class _Console(Console):
    """A console that ends the demo like Ctrl-C when the reader of its output goes away."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        output.silence()
        signal.raise_signal(signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Options:
    """Options from the command line.

    :param images: number of images to upload.
    :param scrub_time: seconds to keep deleted images during the demo.
    :param keep: leave everything running at the end until Ctrl-C, and keep deleted images for this
        many seconds from then on; None to end with the demo.
    :param transport_url: URL of the bus; None for one in memory.
    :param database_url: URL of an empty database; None for SQLite.
    """

    images: int
    scrub_time: int
    keep: int | None
    transport_url: str | None
    database_url: str | None


def run(options: Options) -> int:
    """Run the demo; return the exit code."""
    console, errors = _Console(), _Console(stderr=True)
    session = _Session(options, console)
    # A shell makes background processes ignore SIGINT, and all signals are turned into SIGINT here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        session.play()
    except KeyboardInterrupt:
        if session.code is None:
            session.code = INTERRUPTED
    except CannotRunError as error:
        _say(errors, f"evscrub demo: {error}")
        session.code = MISUSED
    except Exception as error:
        cause = _cause(error)
        said = str(cause) if isinstance(cause, DemoError) else _describe(cause)
        if not isinstance(cause, DemoError):
            LOG.exception("The demo failed unexpectedly")
        _say(errors, f"evscrub demo: {redact.redact(said)}\n{session.log_tails()}")
        session.code = FAILED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up takes little time
        session.close(errors)
    return FAILED if session.code is None else session.code


class _Session:
    """One run of the demo; `code` is its exit code, None until that is known."""

    def __init__(self, options: Options, console: Console) -> None:
        self.code: int | None = None
        self._options = options
        self._console = console
        self._stage: Stage | None = None

    def play(self) -> None:
        options, console = self._options, self._console
        plans = plan(options.images, secrets.randbits(32))
        deleted = sum(plan.fate is not Fate.KEPT for plan in plans)
        self._stage = stage = Stage(
            scrub_time=options.scrub_time,
            rate=max(_RATE, round(deleted / _RATE_PART)),
            transport_url=options.transport_url,
            database_url=options.database_url,
            topic=f"evscrub_demo_{secrets.token_hex(4)}",
        )
        starting = f"Starting a Glance in {stage.folder}"
        if not console.is_terminal or console.is_dumb_terminal:
            _say(console, starting)
        with console.status(starting, spinner="line"):
            conf, own = stage.build()
        horizon = stage.scrub_time + 1.0
        display = display_for(console, title(stage), horizon)
        play = Play(stage, plans, conf, own, display, Clock())
        anyio.run(self._run, play, stage)

    async def _run(self, play: Play, stage: Stage) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(play.agent.run)
            outcome = await play.run()
            self.code = DONE if report(self._console, outcome) else FAILED
            if self.code == FAILED:
                _say(self._console, "\n" + stage.log_tails())
            if self._options.keep is not None:
                stage.keep_deleted(self._options.keep)
                play.agent.reload()
                print_commands(self._console, stage)
                await self._follow(play)
            play.agent.stop()

    async def _follow(self, play: Play) -> None:
        """Print what the agent does until cancelled, a line per change."""

        def tell(scrubbed: Scrubbed) -> None:
            late = f"{scrubbed.late_seconds:.2f} s late"
            _say(self._console, f"scrubbed {scrubbed.image_id} of {scrubbed.owner}, {late}")

        play.on_scrubbed = tell
        before = 0
        while True:
            waiting = play.agent.queue.statistics().waiting
            if waiting > before:
                _say(self._console, f"waiting: {waiting}")
            before = waiting
            await anyio.sleep(_POLL_SECONDS)

    def log_tails(self) -> str:
        return "" if self._stage is None else self._stage.log_tails()

    def close(self, errors: Console) -> None:
        if self._stage is None:
            return
        try:
            self._stage.close()
        except Exception as error:  # noqa: BLE001 - any error is reported
            said = redact.redact(_describe(error))
            _say(errors, f"evscrub demo: cleanup failed, some files or tables remain: {said}")
        else:
            _say(self._console, f"\n Removed {self._stage.folder}")


def _cause(error: BaseException) -> BaseException:
    """Return the first error of nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
