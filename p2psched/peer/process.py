"""A peer as a process of its own: event loop, signals, and one call that lives as long as it."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from p2psched.model.config import Config
from p2psched.model.errors import Removed
from p2psched.observe.allocator import Bursts, trimmer
from p2psched.observe.beat import until_beat
from p2psched.peer.announcing import Ready
from p2psched.peer.lives import Lives
from p2psched.store.address_book import AddressBook
from p2psched.store.folder import read_identity, set_aside
from p2psched.store.records import remove_record

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005  # a busy loop must not hold up the thread that syncs the log

# The collector of cycles looks at what is new after so many objects (700 is Python's own number),
# and at what is older after 20 and 200 times as many. With hundreds of calls open at any time,
# each of them alive at every look, it took a third of a leader's CPU. Our own code makes cycles
# only where something fails.
GC_THRESHOLDS = (50_000, 20, 10)

LOOK_S = 2.0  # between two looks whether a burst is over


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it exists, else the standard loop."""
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415 (only where it exists)

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def run_peer(config: Config, *, on_ready: Callable[[Ready], None]) -> None:
    """Run a peer until SIGTERM or SIGINT. Raises P2PSchedError if it can't start or go on."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(config, on_ready))


async def _main(config: Config, on_ready: Callable[[Ready], None]) -> None:
    was_ready = False

    def on_known(ready: Ready) -> None:
        """What is here by now, all code and what the ledger began with, stays: not looked at."""
        nonlocal was_ready
        was_ready = True
        gc.collect()
        gc.freeze()
        on_ready(ready)

    lives = Lives(config, on_ready=on_known)
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    interrupts = 0

    def on_signal() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            lives.stop()
        else:  # whoever asks twice doesn't want to wait
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    giving_back = loop.create_task(_give_back())
    try:
        await lives.run()
    except Removed:
        # One that is removed while it works stops: it would be back as soon as it is gone.
        if not config.anew or was_ready:
            raise
        lives = Lives(_anew(config), on_ready=on_known)
        await lives.run()
    finally:
        giving_back.cancel()


async def _give_back() -> None:
    """Free memory, after the start and after each burst; until cancelled."""
    trim = trimmer()
    if trim is None:
        return
    bursts = Bursts(time.monotonic(), time.process_time())
    while True:
        await asyncio.sleep(until_beat(LOOK_S))
        if bursts.is_over(time.monotonic(), time.process_time()):
            trim()


def _anew(config: Config) -> Config:
    """Of a new peer that knows where the old one found its cluster. Raises Refused."""
    path = Path(config.data)
    known = AddressBook(path / "peers.json").load().values()
    aside = set_aside(path)
    # This process lives on, and would vouch for the record of who it was.
    remove_record(Path(config.runtime_dir), read_identity(aside).peer)
    log.warning("removed-peer-set-aside", extra={"folder": str(aside)})
    return msgspec.structs.replace(
        config,
        join=config.join or tuple(address for _, address in known),
        secret_file=config.secret_file or str(aside / "secret"),
        anew=False,
    )
