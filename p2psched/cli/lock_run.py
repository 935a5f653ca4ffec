"""`p2psched lock run`: a command that runs while a lock is held, and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.lock import (
    CapacityOption,
    NameArgument,
    PermitsOption,
    SharedOption,
    TimeoutOption,
    TtlOption,
    WaitOption,
    lock_of,
)
from p2psched.cli.options import Target, duration, talks_to_peers
from p2psched.client.client import Client
from p2psched.client.locks import Lock
from p2psched.model.errors import LockLost, UsageError
from p2psched.model.lock_actions import OWNER_LEN_MAX

RUN_EXAMPLES: Final = """\b
Examples:
  p2psched lock run nightly-backup -- ./backup.sh
  p2psched lock run prod-db --ttl 10s -- ./migrate
  p2psched lock run license:3 -- ./simulate model.dat
  p2psched lock run report --no-wait -- ./report

The command finds its token in $P2P_FENCE: hand it to what
guards the resource. If the lock is lost the command and its
process group get SIGTERM, then SIGKILL, and the exit code
is 7; else it is that of the command.
"""
GRACE: Final = "2s"
OWNER_VARIABLE: Final = "P2P_LOCK_OWNER"  # so that what runs inside is known as one with us
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG: Final = 1


@talks_to_peers
def run(
    target: Target,
    name: NameArgument,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="Behind --: the program and its arguments."),
    ],
    *,
    ttl: TtlOption = "30s",
    shared: SharedOption = False,
    capacity: CapacityOption = None,
    permits: PermitsOption = 1,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="DURATION", help="From SIGTERM to SIGKILL."),
    ] = GRACE,
) -> None:
    """Run a command while a lock is held.

    The lock is renewed as long as the command runs and the cluster is reached, and free for the
    next as soon as it ends.
    """
    grace_s = duration(grace, "--grace")
    if shutil.which(command[0]) is None:
        raise UsageError(f"there is no program {command[0]}")

    async def work(client: Client) -> int:
        lock = lock_of(
            client,
            name,
            ttl=ttl,
            shared=shared,
            capacity=capacity,
            permits=permits,
            wait=wait,
            timeout=timeout,
            owner=os.environ.get(OWNER_VARIABLE, "")[:OWNER_LEN_MAX],
        )
        async with lock:
            code = await _run_under(lock, command, grace_s=grace_s)
            if lock.lost.is_set():
                raise LockLost(f"lock {name} was lost, and the command ended")
            return code

    raise typer.Exit(talk(target, work))


async def _run_under(lock: Lock, command: list[str], *, grace_s: float) -> int:
    """The exit code of the command, as a shell tells it."""
    environment = {
        **os.environ,
        "P2P_FENCE": str(lock.token),
        "P2P_LOCK": lock.name,
        OWNER_VARIABLE: lock.owner,
    }
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, start_new_session=True, preexec_fn=_dying_with_us()
        )
    except OSError as error:
        raise UsageError(f"{command[0]} can't be executed: {error.strerror}") from error
    async with asyncio.TaskGroup() as group:
        ending = group.create_task(_end_when_lost(lock, child, grace_s))
        with _signals_to(child.pid):
            code = await child.wait()
        ending.cancel()
        if lock.lost.is_set():  # what it has left behind has no lock either
            _signal(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


async def _end_when_lost(lock: Lock, child: Process, grace_s: float) -> None:
    await lock.lost.wait()
    _signal(child.pid, signal.SIGTERM)
    await asyncio.sleep(grace_s)
    _signal(child.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


@contextlib.contextmanager
def _signals_to(group: int) -> Iterator[None]:
    """What is sent to us is meant for the command: it is in no group of the terminal's."""
    loop = asyncio.get_running_loop()
    for number in _PASSED_ON:
        loop.add_signal_handler(number, _signal, group, number)
    try:
        yield
    finally:
        for number in _PASSED_ON:
            loop.remove_signal_handler(number)


def _dying_with_us() -> Callable[[], None]:
    """If we are killed nobody renews the lock, so the command must not go on. Its own children
    may: for them there is the token."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return bind
