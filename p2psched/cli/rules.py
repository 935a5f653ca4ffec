"""`submit-job --retry|--queue-timeout|--total-timeout|--start`: bad ends, limits, second starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from p2psched.cli.complete import complete_rules
from p2psched.cli.options import duration
from p2psched.client.resolving import start_of
from p2psched.client.retries import policy_of_words, times
from p2psched.model.once import Start
from p2psched.model.retry import RetryPolicy, TimeLimits

_Retry = Annotated[
    list[str] | None,
    typer.Option(
        "--retry",
        metavar="CAUSE=N[,OPTION...]",
        autocompletion=complete_rules,
        help="Further attempts after ends by this cause; see docs/retries.md. Repeatable.",
    ),
]
_QueueTimeout = Annotated[
    str | None,
    typer.Option(
        "--queue-timeout", metavar="DURATION", help="Give up what no peer has taken by then."
    ),
]
_TotalTimeout = Annotated[
    str | None,
    typer.Option("--total-timeout", metavar="DURATION", help="End the whole job after this."),
]


_Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="least|once",
        help="once: a task whose peer is lost never runs again by itself; see docs/never-twice.md.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The options of it."""

    retry: _Retry = None
    queue_timeout: _QueueTimeout = None
    total_timeout: _TotalTimeout = None
    start: _Start = "least"

    @property
    def policy(self) -> RetryPolicy | None:
        return policy_of_words(self.retry or [])

    @property
    def starts(self) -> Start:
        return start_of(self.start)

    @property
    def times(self) -> TimeLimits | None:
        queue_s = _seconds(self.queue_timeout, "--queue-timeout")
        return times(queue_s, _seconds(self.total_timeout, "--total-timeout"))


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else duration(text, option)
