"""E5: who gives tasks to another peer has begun none of them, and begins none of them; nobody is
asked too often by who gets nothing, and no task goes from peer to peer for ever.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from p2psched.model.execution import Batch
from p2psched.model.ids import JobId, PeerId
from p2psched.testing.facts import Fact
from p2psched.testing.promises import demand

MOVES_MAX: Final = 8  # of a task since it was placed: each has to save twice what the last did
WINDOW_US: Final = 1_000_000
ASKED_MAX: Final = (
    60  # by one process of one other peer, in a window; each start of a task is worth one
)


class StealReferee:
    def __init__(self) -> None:
        self.moves_max = MOVES_MAX  # in groups of a few peers; larger ones halve more often
        self._begun: set[tuple[JobId, int, int]] = set()  # job, task, grant
        self._moved: set[tuple[JobId, int, int]] = set()
        self._asked: dict[tuple[PeerId, int], dict[PeerId, deque[int]]] = {}

    def on_started(self, batch: Batch, index: int, peer: int, process: tuple[PeerId, int]) -> None:
        key = (batch.job, index, batch.grant)
        is_own = key not in self._moved
        demand(is_own, "E5", f"peer {peer} starts {batch.job}/{index}, which it gave away")
        self._begun.add(key)
        for times in self._asked.get(process, {}).values():
            if times:
                times.popleft()

    def on_committed(self, facts: list[Fact], moves: int) -> None:
        """Of a `Transfer`: tasks that moved, so often by now since they were placed."""
        for what, job, index, grant in facts:
            if what == "moved":
                key = (JobId(job), index, int(grant))
                demand(key not in self._begun, "E5", f"task {job}/{index} moves, and has begun")
                demand(moves <= self.moves_max, "E5", f"task {job}/{index} has moved {moves} times")
                self._moved.add(key)

    def on_asked(self, now_us: int, thief: PeerId, process: int, victim: PeerId) -> None:
        times = self._asked.setdefault((thief, process), {}).setdefault(victim, deque())
        times.append(now_us)
        while times[0] <= now_us - WINDOW_US:
            times.popleft()
        text = f"a peer is asked {len(times)} times in a second, for nothing"
        demand(len(times) <= ASKED_MAX, "E5", text)
