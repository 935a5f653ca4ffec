"""How often a task may start, in words; and results that a person gives for unknown tasks."""

from __future__ import annotations

from typing import Final

import msgpack

from p2psched.model import chunks, items
from p2psched.model.errors import UsageError
from p2psched.model.once import Start
from p2psched.run.host.pickling import dumps

WORDS: Final = {start.name.lower(): start for start in Start}
_PLAIN: Final = (type(None), bool, int, float, str, bytes)


def start_of(word: Start | str) -> Start:
    """Raises UsageError for what is none."""
    if isinstance(word, Start):
        return word
    if word not in WORDS:
        raise UsageError(f"start is {' or '.join(map(repr, WORDS))}, not {word!r}")
    return WORDS[word]


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
