"""E9: an exclusive task runs at no two places at any moment of true time, whatever clocks say."""

from __future__ import annotations

from collections.abc import Callable

from p2psched.model.ids import JobId, PeerId
from p2psched.testing.promises import demand

Task = tuple[JobId, int]


class Running:
    """One such task where it runs. `is_asleep`: its whole machine is, so nothing runs there."""

    def __init__(self, task: Task, peer: PeerId, is_asleep: Callable[[], bool]) -> None:
        self.task = task
        self.peer = peer
        self.is_asleep = is_asleep


class ExclusiveReferee:
    def __init__(self) -> None:
        self._running: dict[Task, list[Running]] = {}

    def on_begun(self, running: Running) -> None:
        self._running.setdefault(running.task, []).append(running)
        self.check(running)

    def check(self, running: Running) -> None:
        """It runs, maybe again: its machine has woken."""
        at = [each.peer for each in self._running[running.task] if not each.is_asleep()]
        demand(len(at) <= 1, "E9", f"task {running.task} runs on {at} at the same time")

    def on_over(self, running: Running) -> None:
        found = self._running[running.task]
        found.remove(running)
        if not found:
            del self._running[running.task]
