"""How often a task may start, in words; and results that a person gives for unknown tasks."""

from __future__ import annotations

from typing import Final, TypedDict

import msgpack

from p2psched.client.durations import duration_ms
from p2psched.model import chunks, items
from p2psched.model.errors import UsageError
from p2psched.model.once import LEASE_MS, Start
from p2psched.run.host.pickling import dumps

WORDS: Final = {start.name.lower(): start for start in Start}
_PLAIN: Final = (type(None), bool, int, float, str, bytes)


def start_of(word: Start | str) -> Start:
    """Raises UsageError for what is none."""
    if isinstance(word, Start):
        return word
    if word not in WORDS:
        raise UsageError(f"start is {', '.join(map(repr, WORDS))}, not {word!r}")
    return WORDS[word]


def lease_ms(start: Start | str, lease: float | str | None) -> int:
    """Of an exclusive task; 0 if it needs none. `lease`: seconds, or as people write it. Raises
    UsageError, and gives what is out of bounds to who makes a spec of it."""
    if lease is None:
        return LEASE_MS if start_of(start) is Start.EXCLUSIVE else 0
    return duration_ms(lease) if isinstance(lease, str) else round(lease * 1000)


class Starting(TypedDict):
    """Fields of a spec."""

    start: Start
    lease_ms: int


def starting(start: Start | str, lease: float | str | None) -> Starting:
    """Raises UsageError."""
    return {"start": start_of(start), "lease_ms": lease_ms(start, lease)}


def results_by_hand(kind: str, result: object, count: int) -> bytes:
    """So many tasks of a job of this kind have succeeded: each returned `result`, or has printed
    it and ended with exit code 0. Raises UsageError."""
    if kind == "program":
        if not isinstance(result, bytes | None):
            raise UsageError("the result of a program is what it printed: give bytes")
        item = items.pack({"exit": 0}, stdout=result or b"")
    else:
        item = items.pack_value(_packed(result))
    return chunks.pack([item] * count)


def _packed(value: object) -> bytes:
    try:
        return msgpack.packb(value) if type(value) in _PLAIN else dumps(value)
    except Exception as error:
        raise UsageError(
            f"the result can't be serialised ({type(error).__name__}: {error}): give plain data"
        ) from error
