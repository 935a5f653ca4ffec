"""Finds work that could run and does not, and says what to do about it: a pure rule over what is
seen once in a while (ADR 0055).

Where there is a reason that is right, waiting is no fault. Without one it is, once it has lasted.
Then one step after another is taken, the gentlest first, until something begins; and behind the
last, after a pause, all of them again, for by then something else may be what stands still. A fault
that comes back soon goes on where its healing had ended. After a pause of this process nothing that
it sees has lasted.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

from p2psched.model.ids import JobId
from p2psched.model.stalls import STALL_MS, Fault
from p2psched.model.taskset import TaskSet

LOOKS: Final = 5  # within the patience
PAUSE_LOOKS: Final = 3  # not looked for as long as these: it was this process that did not go on
RELAPSE_MS: Final = 60_000
PAUSE_MS_MAX: Final = 60_000  # behind the last step
SIGHTS_MAX: Final = 256  # that are followed; the others have their turn
STEPS: Final = {Fault.QUEUE: 2, Fault.EXECUTOR: 4, Fault.GRANT: 1, Fault.PLACEMENT: 3}


class Sight(NamedTuple):
    """Work of which nothing begins, as of one look."""

    fault: Fault
    key: Hashable  # another one as soon as something has begun
    job: JobId
    tasks: TaskSet
    what: str  # is there instead, for people
    reason: str = ""  # why that is as it should be; empty: it is a fault, if it lasts


class Found(NamedTuple):
    """These have lasted: take this step."""

    fault: Fault
    step: int  # from 1
    sights: tuple[Sight, ...]
    lasted_ms: int
    is_new: bool


class Over(NamedTuple):
    """They go on, or are not wanted any more."""

    fault: Fault
    step: int  # the last that was taken
    lasted_ms: int


class _Case:
    __slots__ = ("again_ms", "pause_ms", "quiet", "since_ms", "step", "what")

    def __init__(self, since_ms: int, step: int, pause_ms: int) -> None:
        self.since_ms = since_ms
        self.step = step
        self.pause_ms = pause_ms
        self.again_ms = 0
        self.quiet = 0  # looks in a row that saw nothing of it
        self.what = ""


class Watchdog:
    """Of one process."""

    def __init__(self, patience_ms: int = STALL_MS) -> None:
        self.patience_ms = patience_ms
        self.every_ms: Final = max(1, patience_ms // LOOKS)
        self.found = self.healed = 0
        self.waits: dict[Fault, str] = {}  # reasons that are right, as of the last look
        self._looked_ms: int | None = None
        self._since: dict[tuple[Fault, Hashable], int] = {}
        self._cases: dict[Fault, _Case] = {}
        self._last: dict[Fault, tuple[int, int]] = {}  # the step that healed it, and when

    def is_due(self, now_ms: int) -> bool:
        return self._looked_ms is None or now_ms - self._looked_ms >= self.every_ms

    @property
    def now(self) -> tuple[str, ...]:
        """What does not go on, for people."""
        return tuple(
            f"{case.what} (step {case.step} of {STEPS[fault]} is taken)"
            for fault, case in self._cases.items()
        )

    def look(self, now_ms: int, sights: Sequence[Sight]) -> list[Found | Over]:
        """What has lasted for too long, and what is over."""
        if self._looked_ms is None or now_ms - self._looked_ms > PAUSE_LOOKS * self.every_ms:
            self._since.clear()
        self._looked_ms = now_ms
        self.waits = {sight.fault: sight.reason for sight in sights if sight.reason}
        faults = [sight for sight in sights if not sight.reason][:SIGHTS_MAX]
        keys = [(sight.fault, sight.key) for sight in faults]
        self._since = {key: self._since.get(key, now_ms) for key in keys}
        lasting: dict[Fault, list[Sight]] = {}
        for sight, key in zip(faults, keys, strict=True):
            if now_ms - self._since[key] >= self.patience_ms:
                lasting.setdefault(sight.fault, []).append(sight)
        said: list[Found | Over] = []
        for fault in Fault:
            if fault in lasting:
                said += self._on_lasting(now_ms, fault, lasting[fault])
            elif fault in self._cases:
                said += self._on_quiet(now_ms, fault, self._cases[fault])
        assert set(lasting) <= set(self._cases), "what lasts is a case"
        return said

    def _on_lasting(self, now_ms: int, fault: Fault, sights: list[Sight]) -> list[Found]:
        case = self._cases.get(fault)
        is_new = case is None
        if case is None:
            self.found += 1
            since_ms = min(self._since[sight.fault, sight.key] for sight in sights)
            step, over_ms = self._last.get(fault, (1, 0))
            was_before = fault in self._last and now_ms - over_ms < RELAPSE_MS
            case = _Case(since_ms, step - 1 if was_before else 0, self.patience_ms)
            self._cases[fault] = case
        case.quiet, case.what = 0, sights[0].what
        if now_ms < case.again_ms:
            return []
        last = STEPS[fault]
        if case.step == last:
            case.pause_ms = max(case.pause_ms, min(2 * case.pause_ms, PAUSE_MS_MAX))
        case.step = case.step % last + 1
        case.again_ms = now_ms + (case.pause_ms if case.step == last else self.patience_ms)
        return [Found(fault, case.step, tuple(sights), now_ms - case.since_ms, is_new)]

    def _on_quiet(self, now_ms: int, fault: Fault, case: _Case) -> list[Over]:
        """What waits behind something else for one look may be what was stuck before."""
        case.quiet += 1
        if case.quiet <= LOOKS:
            return []
        del self._cases[fault]
        self.healed += 1
        self._last[fault] = case.step, now_ms
        return [Over(fault, case.step, now_ms - case.since_ms)]
