"""What a peer says of its load, and when: little, if nothing happens.

What others act upon is said at once: it has a free slot or none any more, its queue is empty or no
more, it takes nothing. Of what moves slowly a change counts that is large and lasts. A report is
whole, or what differs from the last whole one. Bytes are bounded by a token bucket; while it is
empty nothing is kept for later: the next report says how things are then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.model.load import LoadReport, TypeSpeed
from p2psched.model.load_news import FIELDS, LoadNews, WholeLoad, applied, delta

BURST_BYTES: Final = 2_048
ITEM_BYTES: Final = 26  # around each on its way: whose it is, its number
RESERVE_BYTES: Final = 320  # of the burst: about eight reports that are urgent
REPORT_BYTES_MAX: Final = 1_024  # fits one datagram
URGENT_MS: Final = 200  # between two reports
SLOW_MS: Final = 2_000  # likewise, if nothing is urgent
LASTING_MS: Final = 1_000  # a change that isn't urgent has lasted so long
WHOLE_MS: Final = 1_800_000  # between two whole ones, however little happens
DELTAS_MAX: Final = 256  # likewise, however much

# A change of a field counts from this on. Not named: any change.
_STEPS: Final = {
    "cpu": 150,
    "foreign_cpu": 100,
    "battery": 5,
    "temperature": 5,
    "duty": 50,
}
# (per mille of the larger of both, and at least)
_SHARES: Final = {
    "running": (250, 1),
    "queue": (250, 2),
    "queue_us": (250, 100_000),
    "memory": (10, 1),
    "memory_free": (100, 64),
    "disk_free": (100, 256),
    "received": (500, 256),
    "sent": (500, 256),
    "load": (300, 100),
}
_SPEED_SHARE: Final = 250  # per mille
_SMALL: Final = ("running", "queue")  # cost nothing beside the rest: said whenever they differ


class Said(msgspec.Struct, frozen=True):
    """To be spread; newer ones of the same sort take its place."""

    is_whole: bool
    data: bytes


def share_bytes_s(total_bytes_s: float, peers: int, copies: int) -> float:
    """What a peer may say of itself, so that no peer sends more than `total_bytes_s` of what all
    say: each of `peers` sends every report `copies` times."""
    return total_bytes_s / max(1, peers * copies)


class LoadReporter:
    """Mutable; of one peer. `encode` is pure."""

    def __init__(self, encode: Callable[[LoadNews], bytes]) -> None:
        self._encode = encode
        self._number = 0
        self._base: LoadReport | None = None
        self._said = LoadReport(number=0)  # as others know it now
        self._said_ms = 0
        self._base_ms = 0
        self._deltas = 0  # since the base
        self._again = 0  # bytes of these that said once more what an earlier one had said
        self._differs_since_ms: int | None = None
        self._tokens = float(BURST_BYTES)
        self._filled_ms: int | None = None
        self.whole_count = 0
        self.delta_count = 0
        self.bytes_said = 0
        self.bytes_saved = 0  # against saying all of it whole
        self.held_back = 0  # looks at which the budget had nothing left

    def ask_whole(self) -> None:
        """Somebody lacks what deltas build on."""
        self._base = None

    def look(self, now_ms: int, found: LoadReport, *, bytes_s: float) -> Said | None:
        """What to say now, if anything. `found.number` doesn't matter."""
        self._fill(now_ms, bytes_s)
        urgent, due = self._is_due(now_ms, found)
        if not due:
            return None
        now = msgspec.structs.replace(found, number=self._number + 1)
        said = self._shorter(now_ms, now)
        least = 0 if urgent or self._base is None else RESERVE_BYTES
        size = len(said.data) + ITEM_BYTES
        if len(said.data) > REPORT_BYTES_MAX or size > self._tokens - least:
            self.held_back += 1
            return None
        self._note(now_ms, now, said)
        return said

    def _fill(self, now_ms: int, bytes_s: float) -> None:
        if self._filled_ms is not None:
            passed_ms = max(0, now_ms - self._filled_ms)
            self._tokens = min(BURST_BYTES, self._tokens + passed_ms * bytes_s / 1000)
        self._filled_ms = now_ms

    def _is_due(self, now_ms: int, found: LoadReport) -> tuple[bool, bool]:
        """Whether it is urgent, and whether to say something."""
        if self._base is None:
            return True, True
        passed_ms = now_ms - self._said_ms
        if is_urgent(self._said, found):
            return True, passed_ms >= URGENT_MS
        if now_ms - self._base_ms >= WHOLE_MS:
            return False, True
        if not any(differs(name, self._said, found) for name in FIELDS):
            self._differs_since_ms = None
            return False, False
        if self._differs_since_ms is None:
            self._differs_since_ms = now_ms
        lasts = now_ms - self._differs_since_ms >= LASTING_MS
        return False, lasts and passed_ms >= SLOW_MS

    def _shorter(self, now_ms: int, now: LoadReport) -> Said:
        whole = Said(is_whole=True, data=self._encode(WholeLoad(now)))
        base = self._base
        is_old = now_ms - self._base_ms >= WHOLE_MS or self._deltas >= DELTAS_MAX
        if base is None or is_old:
            return whole
        names = [name for name in FIELDS if _belongs(name, base, now)]
        change = self._encode(delta(base, now, names))
        # What has differed for long is said again in each delta. As soon as that has cost what a
        # new base costs, there is a new base: at most twice what would be needed if one knew.
        fresh = [name for name in FIELDS if _belongs(name, self._said, now)]
        self._again += len(change) - len(self._encode(delta(self._said, now, fresh)))
        if self._again >= len(whole.data) - len(change):
            return whole
        self.bytes_saved += len(whole.data) - len(change)
        return Said(is_whole=False, data=change)

    def _note(self, now_ms: int, now: LoadReport, said: Said) -> None:
        self._number = now.number
        self._tokens -= len(said.data) + ITEM_BYTES
        self._said_ms = now_ms
        self._differs_since_ms = None
        self.bytes_said += len(said.data) + ITEM_BYTES
        if said.is_whole:
            self._said = self._base = now
            self._base_ms, self._deltas, self._again = now_ms, 0, 0
            self.whole_count += 1
        else:
            assert self._base is not None
            names = [name for name in FIELDS if _belongs(name, self._base, now)]
            self._said = applied(self._base, delta(self._base, now, names))
            self._deltas += 1
            self.delta_count += 1


def is_urgent(said: LoadReport, now: LoadReport) -> bool:
    """Others would give it work, or ask it for some, who didn't before; or no more."""
    return (
        said.takes != now.takes
        or said.slots != now.slots
        or (said.running < said.slots) != (now.running < now.slots)
        or (said.queue > 0) != (now.queue > 0)
    )


def differs(name: str, said: LoadReport, now: LoadReport, *, by: float = 1.0) -> bool:
    """True if the change of a field counts; `by`: from which part of that on."""
    before, after = getattr(said, name), getattr(now, name)
    if name == "number" or before == after:
        return False
    if name in _STEPS:
        # That there is none, or one again, is no matter of degree.
        return bool(min(before, after) < 0 or abs(after - before) >= _STEPS[name] * by)
    if name in _SHARES:
        return _is_far(name, before, after, by)
    if name == "speeds":
        return _speeds_differ(before, after, by)
    if name == "queued":
        return _queued_differ(dict(before), dict(after), by)
    return name != "warm" or set(before) != set(after)


def _belongs(name: str, base: LoadReport, now: LoadReport) -> bool:
    """True if a delta should say it: more exactly than it is worth a delta."""
    if name in _SMALL:
        return bool(getattr(base, name) != getattr(now, name))
    return differs(name, base, now, by=0.5)


def _is_far(name: str, before: int, after: int, by: float) -> bool:
    share, least = _SHARES[name]
    return abs(after - before) >= by * max(least, share * max(before, after) // 1000)


def _queued_differ(before: dict[int, int], after: dict[int, int], by: float) -> bool:
    """A kind of work, or none of it any more, is no matter of degree."""
    return before.keys() != after.keys() or any(
        _is_far("queue", before[kind], count, by) for kind, count in after.items()
    )


def _speeds_differ(before: tuple[TypeSpeed, ...], after: tuple[TypeSpeed, ...], by: float) -> bool:
    known = {speed.kind: speed.mean_us for speed in before}
    for speed in after:
        mean_us = known.get(speed.kind)
        if mean_us is None:
            return True
        limit_us = _SPEED_SHARE * max(mean_us, speed.mean_us) // 1000
        if abs(speed.mean_us - mean_us) > limit_us * by:
            return True
    return False
