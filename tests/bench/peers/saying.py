# SPDX-License-Identifier: Apache-2.0
"""How a peer tells the benchmark what it does and what it has used."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time

#: Tells a peer that was told to wait that it may begin.
GO = signal.SIGUSR1


def limit(seconds: int) -> None:
    """End this process after so many seconds, whatever it does then."""
    signal.alarm(seconds)


def wait_for_go() -> None:
    """Say "ready" and wait until the benchmark says go; for a main thread without others."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {GO})
    say("ready")
    signal.sigwait({GO})


def cpu_seconds() -> float:
    """CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(said: str, **values: object) -> None:
    """Say that something happened now, with the time and what this process has used so far."""
    message = {
        "said": said,
        "wall": time.monotonic(),
        "cpu": cpu_seconds(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **values,
    }
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def leave() -> None:
    """End at once, as ``evscrub agent`` itself does."""
    sys.stdout.flush()
    os._exit(0)
