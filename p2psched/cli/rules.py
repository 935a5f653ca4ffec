"""`submit-job --retry|--total-timeout|--grace|--heartbeat|...`: bad ends, limits, and tasks that
are too slow or silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

import typer

from p2psched.cli.complete import complete_rules
from p2psched.cli.options import duration
from p2psched.client.backing import backing_of
from p2psched.client.pacing import AUTO, POLICIES, pace_rules, with_stalls
from p2psched.client.precedence import precedence_of
from p2psched.client.resolving import lease_ms, start_of
from p2psched.client.retries import policy_of_words, times
from p2psched.model.backing import REPLICAS_MAX, Backing
from p2psched.model.errors import UsageError
from p2psched.model.once import Start
from p2psched.model.pace_rules import PaceRules
from p2psched.model.precedence import JOB_PRIORITY_MAX, Precedence
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
_Grace = Annotated[
    str | None,
    typer.Option(
        "--grace",
        metavar="DURATION",
        help="From SIGTERM to SIGKILL when a task is ended. Default: 0.5s.",
    ),
]
_Progress = Annotated[
    str | None,
    typer.Option(
        "--progress",
        metavar="PATTERN",
        help="How far a task is, in what it prints; see docs/progress.md.",
    ),
]
_Heartbeat = Annotated[
    str | None,
    typer.Option("--heartbeat", metavar="DURATION", help="A task silent for so long has stalled."),
]
_Expect = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="DURATION|auto",
        help="What a task takes: without --timeout, three times that is too long.",
    ),
]
_OnStall = Annotated[
    str | None,
    typer.Option(
        "--on-stall",
        metavar="|".join(POLICIES),
        autocompletion=lambda: list(POLICIES),
        help="What follows if a task is silent, or too slow for its limit. Default: warn.",
    ),
]


_Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="least|once|exclusive",
        help="once: a task whose peer is lost never runs again by itself; exclusive: only once "
        "nobody runs it any more, for certain; see docs/never-twice.md.",
    ),
]
_Lease = Annotated[
    str | None,
    typer.Option(
        "--lease",
        metavar="DURATION",
        help="How long an exclusive task runs on without a word of the ledger. Default: 15s.",
    ),
]


_Replicas = Annotated[
    int,
    typer.Option(
        "--replicas",
        metavar="N",
        min=1,
        max=REPLICAS_MAX,
        help="Run each task on N peers at a time; the first good end counts. See docs/replicas.md.",
    ),
]
_Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate",
        help="Begin a task elsewhere, too, if it takes far longer than its like.",
    ),
]


_Priority = Annotated[
    int,
    typer.Option(
        "--priority",
        metavar="N",
        min=-JOB_PRIORITY_MAX,
        max=JOB_PRIORITY_MAX,
        help="Tasks of jobs with a higher one run first. Default: 0. See docs/priorities.md.",
    ),
]
_Preemptible = Annotated[
    bool,
    typer.Option(
        "--preemptible",
        help="A task may be ended for one of a job with a higher priority, and goes on from its "
        "checkpoint later. Needs --checkpoint.",
    ),
]
_PreemptAfter = Annotated[
    str | None,
    typer.Option(
        "--preempt-after",
        metavar="DURATION",
        help="So long after it began a preemptible task is left alone. Default: 10s.",
    ),
]


class Told(TypedDict):
    """Fields of a spec."""

    retry: RetryPolicy | None
    times: TimeLimits | None
    pace: PaceRules | None
    start: Start
    lease_ms: int
    backing: Backing | None
    precedence: Precedence | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The options of it."""

    retry: _Retry = None
    queue_timeout: _QueueTimeout = None
    total_timeout: _TotalTimeout = None
    grace: _Grace = None
    progress: _Progress = None
    heartbeat: _Heartbeat = None
    expect: _Expect = None
    on_stall: _OnStall = None
    start: _Start = "least"
    lease: _Lease = None
    replicas: _Replicas = 1
    speculate: _Speculate = False
    priority: _Priority = 0
    preemptible: _Preemptible = False
    preempt_after: _PreemptAfter = None

    @property
    def told(self) -> Told:
        return {
            "retry": self.policy,
            "times": self.times,
            "pace": self.pace,
            "start": self.starts,
            "lease_ms": self.lease_ms,
            "backing": self.backing,
            "precedence": self.precedence,
        }

    @property
    def policy(self) -> RetryPolicy | None:
        return with_stalls(policy_of_words(self.retry or []), self.pace)

    @property
    def starts(self) -> Start:
        return start_of(self.start)

    @property
    def lease_ms(self) -> int:
        lease_s = _seconds(self.lease, "--lease")
        if lease_s is not None and self.starts is not Start.EXCLUSIVE:
            raise UsageError("--lease is for --start exclusive")
        return lease_ms(self.starts, lease_s)

    @property
    def backing(self) -> Backing | None:
        return backing_of(self.replicas, speculate=self.speculate)

    @property
    def precedence(self) -> Precedence | None:
        if self.preempt_after is not None and not self.preemptible:
            raise UsageError("--preempt-after is for --preemptible")
        after_s = _seconds(self.preempt_after, "--preempt-after")
        return precedence_of(self.priority, after_s if after_s is not None else self.preemptible)

    @property
    def times(self) -> TimeLimits | None:
        queue_s = _seconds(self.queue_timeout, "--queue-timeout")
        total_s = _seconds(self.total_timeout, "--total-timeout")
        return times(queue_s, total_s, None if self.grace is None else _grace_s(self.grace))

    @property
    def pace(self) -> PaceRules | None:
        expect = AUTO if self.expect == AUTO else _seconds(self.expect, "--expect")
        words = {
            "progress": self.progress,
            "heartbeat": _seconds(self.heartbeat, "--heartbeat"),
            "expect": expect,
            "on_stall": self.on_stall,
        }
        given = {name: value for name, value in words.items() if value is not None}
        return pace_rules(given) if given else None


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else duration(text, option)


def _grace_s(text: str) -> float:
    return 0.0 if text in {"0", "0s"} else duration(text, "--grace")
