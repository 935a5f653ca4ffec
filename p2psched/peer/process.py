"""A peer as a process of its own: event loop, signals, and one call that lives as long as it."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from collections.abc import Callable

from p2psched.model.config import Config
from p2psched.peer.node import Node, Ready

SWITCH_INTERVAL_S = 0.0005  # a busy loop must not hold up the thread that syncs the log


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it exists, else the standard loop."""
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415 (only where it exists)

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def run_peer(config: Config, *, on_ready: Callable[[Ready], None]) -> None:
    """Run a peer until SIGTERM or SIGINT. Raises P2PSchedError if it can't start or go on."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(config, on_ready))


async def _main(config: Config, on_ready: Callable[[Ready], None]) -> None:
    node = Node(config, on_ready=on_ready)
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    interrupts = 0

    def on_signal() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            node.stop()
        else:  # whoever asks twice doesn't want to wait
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await node.run()
