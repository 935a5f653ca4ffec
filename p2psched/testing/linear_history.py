"""What concurrent clients asked and were told, and what a model is: see `linearizable`."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Unknown(enum.Enum):
    """The answer of an operation that nobody was told."""

    UNKNOWN = "?"


UNKNOWN: Final = Unknown.UNKNOWN


class Everything(enum.Enum):
    """The key of an operation that concerns all keys: it is part of the history of each."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING


class Verdict(enum.StrEnum):
    LINEARIZABLE = "linearizable"
    BROKEN = "broken"
    UNKNOWN = "unknown"  # it would have taken too long


class Model(Protocol[S]):
    """What operations mean when they come one after another. States are values that can be hashed;
    `asked` says all that matters, also who asked if that does."""

    def initial(self) -> S: ...

    def key(self, asked: object) -> Hashable:
        """Operations with different keys have nothing to do with each other; `EVERYTHING`: with
        all."""
        ...

    def step(self, state: S, asked: object, answer: object) -> tuple[bool, S]:
        """Whether `answer` is right here, and the state after it. `UNKNOWN` is always right, unless
        the history rules it out."""
        ...

    def informed(self, operations: Sequence[Operation]) -> Model[S]:
        """The same, for the history of one key: what this history rules out later may be wrong at
        once (the search is shorter). Itself is always right."""
        ...

    def only_looks(self, asked: object, answer: object) -> bool:
        """True if with this answer it has changed nothing, in whatever state: the search is short
        where much only looks. False is always right."""
        ...

    def words(self, state: S) -> str:
        """A state, for people."""
        ...


@dataclass(slots=True, eq=False)
class Operation:
    """Times only order: calls and answers of a history, counted."""

    number: int
    client: str
    asked: Hashable
    called: int
    answered: int | None = None  # None: never, as far as anybody knows
    answer: object = UNKNOWN  # may be unknown though it is known by when it had happened

    def __str__(self) -> str:
        answer = "no answer" if self.answered is None else f"-> {_say(self.answer)}"
        return f"{self.client}: {_say(self.asked)} {answer}"


def _say(value: object) -> str:
    if isinstance(value, Unknown):
        return "?"
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return " ".join(str(part) for part in value)
    return str(value)


class History:
    """Operations as they are called and answered, from one thread."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.now = 0  # of the newest call or answer
        self._calls = 0

    def call(self, client: str, asked: Hashable) -> Operation:
        self.now += 1
        self._calls += 1
        operation = Operation(self._calls, client, asked, self.now)
        self.operations.append(operation)
        return operation

    def answer(self, operation: Operation, answer: object) -> None:
        assert operation.answered is None, "it was answered before"
        self.now += 1
        operation.answered, operation.answer = self.now, answer

    def void(self, operation: Operation) -> None:
        """It has certainly not happened, and never will."""
        self.operations.remove(operation)
