"""A second opinion: the same history and the same model, judged by the package `detangle`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import detangle.lin

from p2psched.testing.linearizable import EVERYTHING, UNKNOWN, Model, Operation


class Foreign(detangle.lin.Model):  # type: ignore[misc, unused-ignore]  # it is loosely typed
    """One of our models, for the other checker."""

    def __init__(self, model: Model[Any]) -> None:
        self._model = model

    def init(self) -> Any:
        return self._model.initial()

    def step(self, state: Any, op: Any) -> tuple[bool, Any]:
        return self._model.step(state, op.arg, op.output if op.status == "ok" else UNKNOWN)

    def partition(self, operations: Any) -> list[list[Any]]:
        keys = [self._model.key(op.arg) for op in operations]
        return [
            [op for op, its in zip(operations, keys, strict=True) if its in (key, EVERYTHING)]
            for key in dict.fromkeys(keys)
            if key is not EVERYTHING
        ]


def second_opinion(operations: Iterable[Operation], model: Model[Any]) -> bool:
    """True if it finds an order, too."""
    foreign = []
    for o in operations:
        op = detangle.lin.Operation(o.number, o.client, "", o.asked, o.called, 0.0)
        if o.answered is not None:
            op.status, op.output, op.ret = "ok", o.answer, o.answered
        foreign.append(op)
    return bool(detangle.lin.check(foreign, Foreign(model)).ok)
