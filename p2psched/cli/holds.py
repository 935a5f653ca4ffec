"""`submit-job --lock|--resource|--queue`: what tasks hold while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from p2psched.model.errors import UsageError
from p2psched.model.hold import Hold

QUEUE_PREFIX: Final = "queue:"  # of the lock that stands for an ordered queue


_Lock = Annotated[
    str | None,
    typer.Option("--lock", metavar="NAME", help="Each task holds this lock while it runs."),
]
_Resource = Annotated[
    str | None,
    typer.Option(
        "--resource",
        metavar="NAME:COUNT",
        help="Each task takes one of COUNT: never more run at a time, of all jobs.",
    ),
]
_Queue = Annotated[
    str | None,
    typer.Option("--queue", metavar="NAME", help="With --ordered: the jobs of one queue."),
]
_Ordered = Annotated[
    bool,
    typer.Option("--ordered", help="Run one task of the queue at a time, in the order of submits."),
]
_OrderKey = Annotated[
    str | None,
    typer.Option("--order-key", metavar="KEY", help="In order only with jobs of the same key."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The options of it."""

    lock: _Lock = None
    resource: _Resource = None
    queue: _Queue = None
    ordered: _Ordered = False
    order_key: _OrderKey = None

    @property
    def hold(self) -> Hold | None:
        """Raises UsageError for what makes no sense."""
        return hold_of(
            lock=self.lock,
            resource=self.resource,
            queue=self.queue,
            ordered=self.ordered,
            order_key=self.order_key,
        )


def hold_of(
    *,
    lock: str | None,
    resource: str | None,
    queue: str | None,
    ordered: bool,
    order_key: str | None,
) -> Hold | None:
    """Raises UsageError for what makes no sense."""
    given = [
        option
        for option, value in (("--lock", lock), ("--resource", resource), ("--queue", queue))
        if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"a task holds one lock at a time: give one of {' and '.join(given)}")
    if queue is None and (ordered or order_key is not None):
        raise UsageError("--ordered and --order-key are for a queue: name it with --queue NAME")
    try:
        if lock is not None:
            return Hold(lock)
        if resource is not None:
            return _resource(resource)
        if queue is not None:
            return _turn(queue, order_key, ordered=ordered)
    except ValueError as error:
        raise UsageError(f"{given[0]}: {error}") from error
    return None


def _resource(text: str) -> Hold:
    name, colon, capacity = text.rpartition(":")
    if not colon or not name or not (capacity.isascii() and capacity.isdigit()):
        raise UsageError(
            f"--resource {text[:64]!r} says not how many there are: write it like camera0:1"
        )
    return Hold(name, int(capacity[:9]))


def _turn(queue: str, order_key: str | None, *, ordered: bool) -> Hold:
    if not ordered:
        raise UsageError("the jobs of a queue run in order: say so with --ordered")
    if not queue or "/" in queue:
        raise UsageError("the name of a queue is not empty and has no '/'")
    if order_key == "":
        raise UsageError(
            "--order-key is not empty: leave it away if all jobs are one after another"
        )
    name = f"{QUEUE_PREFIX}{queue}" if order_key is None else f"{QUEUE_PREFIX}{queue}/{order_key}"
    return Hold(name, in_order=True)
