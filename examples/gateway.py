"""A gateway in a plant: it reads sensors, and has the cluster score windows of their values.

    python examples/gateway.py --data DIR --join HOST:PORT [--secret-file FILE]

The gateway embeds a peer: it joins the cluster without a vote, so it may come and go. Reading never
waits for the cluster. While the rest of it is gone windows pile up (at most WINDOWS_MAX, then the
oldest goes) and are scored once it is back. Ctrl-C or SIGTERM ends it cleanly.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections import deque
from collections.abc import Iterator
from typing import Final

from p2psched import Config, Peer
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.observe import logs

WINDOWS_MAX: Final = 1000
PATIENCE_S: Final = 2.0  # for the cluster to take a window; then it waits with the others
LOOK_S: Final = 0.2
SAY_EVERY: Final = 10  # windows more that wait


def readings(seed: int) -> Iterator[float]:
    """A temperature that wanders a little, with a spike now and then. Equal seeds, equal values."""
    rng = random.Random(seed)
    value = 60.0
    while True:
        value += rng.gauss(0.0, 0.1) - 0.05 * (value - 60.0)
        yield value + (15.0 if rng.random() < 0.01 else 0.0)


def score(window: list[float]) -> float:
    """How far the farthest value is from the mean, in standard deviations. Runs on any peer."""
    mean = sum(window) / len(window)
    deviation = (sum((value - mean) ** 2 for value in window) / len(window)) ** 0.5
    return max(abs(value - mean) for value in window) / deviation if deviation else 0.0


class Gateway:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._waiting: deque[tuple[int, list[float]]] = deque(maxlen=WINDOWS_MAX)
        self._arrived = asyncio.Event()
        self._cut = 0
        self._scored = 0

    async def run(self) -> None:
        """Until it is cancelled. Raises P2PSchedError if its peer can't start or go on."""
        config = Config(
            name=self._options.name,
            data=self._options.data,
            join=self._options.join,
            secret_file=self._options.secret_file,
            slots=self._options.slots,
        )
        error: P2PSchedError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read())
                try:
                    async with Peer(config, patience_s=PATIENCE_S) as peer:
                        say(f"peer {peer.name} is up at {peer.address}")
                        error = await self._live(peer)
                except P2PSchedError as failure:
                    error = failure
                reading.cancel()
        finally:
            say(f"stopped: {self._scored} windows scored, {len(self._waiting)} wait")
        if error is not None:
            raise error

    async def _live(self, peer: Peer) -> P2PSchedError | None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._score(peer)), group.create_task(self._watch(peer))]
            error = await peer.failed()
            for task in tasks:
                task.cancel()
        return error

    async def _read(self) -> None:
        """Never waits for anything but the sensor."""
        window: list[float] = []
        for value in readings(self._options.seed):
            window.append(value)
            if len(window) == self._options.window:
                if len(self._waiting) == WINDOWS_MAX:
                    say(f"window {self._waiting[0][0]} is dropped: {WINDOWS_MAX} wait already")
                self._waiting.append((self._cut, window))
                self._cut += 1
                self._arrived.set()
                window = []
            await asyncio.sleep(self._options.period)

    async def _score(self, peer: Peer) -> None:
        """Oldest first, one after the other. A window stays until it has its score."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            number, window = self._waiting[0]
            try:
                value = await peer.submit(score, window)
            except Unavailable:
                continue  # `_watch` has said so
            self._scored += 1
            say(f"window {number} scores {value:.3f}")
            if self._waiting[0][0] == number:  # it may have been dropped meanwhile
                self._waiting.popleft()

    async def _watch(self, peer: Peer) -> None:
        """Says when the rest of the cluster is gone, how much piles up, and when it is back."""
        there, said = True, 0
        while True:
            try:
                status = await peer.status()
            except Unavailable:
                return  # the peer has ended, see `_live`
            waiting = len(self._waiting)
            if status.quorum != there or (not there and waiting >= said + SAY_EVERY):
                there, said = status.quorum, waiting
                say(f"the cluster is {'back' if there else 'gone'}, {waiting} windows wait")
            await asyncio.sleep(LOOK_S)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="gateway")
    parser.add_argument("--data", required=True, help="folder of the peer")
    parser.add_argument("--join", action="append", default=[], help="host:port of a peer")
    parser.add_argument("--secret-file", help="needed to join a cluster of another machine")
    parser.add_argument("--slots", type=int, default=1, help="tasks that run here at a time")
    parser.add_argument("--window", type=int, default=50, help="readings a window")
    parser.add_argument("--period", type=float, default=0.02, help="seconds from one to the next")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    logs.setup("warning", sys.stderr, json=False)  # the host's choice: a peer only has loggers

    async def run() -> None:
        this = asyncio.current_task()
        assert this is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        await Gateway(options).run()

    try:
        asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    except P2PSchedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
