"""Rules for the pace of tasks as people write them.

    pace={"heartbeat": "60s", "on_stall": "elsewhere", "expect": "auto"}

`heartbeat`: silence for longer is too long. `on_stall`: "warn" or "elsewhere". `expect`: what a
task takes, or "auto": what others of the job have taken. `progress`: a pattern for what a program
prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2psched.client.durations import duration_ms
from p2psched.model.errors import UsageError
from p2psched.model.job import Cause
from p2psched.model.pace_rules import EXPECT_AS_MEASURED, OnStall, PaceRules
from p2psched.model.retry import RetryPolicy, usual_rule

AUTO: Final = "auto"
KEYS: Final = ("heartbeat", "on_stall", "expect", "progress")
POLICIES: Final = tuple(policy.name.lower() for policy in OnStall)

Pace = PaceRules | Mapping[str, str | float]


def pace_rules(pace: Pace | None) -> PaceRules | None:
    """Raises UsageError for what are no rules."""
    if pace is None or isinstance(pace, PaceRules):
        return pace
    unknown = [key for key in pace if key not in KEYS]
    if unknown:
        raise UsageError(f"there is no rule {unknown[0]!r} for a pace: {', '.join(KEYS)}")
    heartbeat, expect = pace.get("heartbeat"), pace.get("expect")
    try:
        return PaceRules(
            heartbeat_ms=None if heartbeat is None else duration_ms(heartbeat),
            on_stall=_on_stall(str(pace.get("on_stall", POLICIES[0]))),
            pattern=str(pace.get("progress", "")),
            expect_ms=EXPECT_AS_MEASURED if expect == AUTO else _expect_ms(expect),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _expect_ms(expect: str | float | None) -> int | None:
    return None if expect is None else max(1, duration_ms(expect))


def _on_stall(text: str) -> OnStall:
    if text not in POLICIES:
        raise UsageError(f"what follows a stall is {' or '.join(POLICIES)}, not {text[:32]!r}")
    return OnStall[text.upper()]


def with_stalls(policy: RetryPolicy | None, rules: PaceRules | None) -> RetryPolicy | None:
    """Who wants stalled tasks to run elsewhere gets one more attempt, if nothing else is said."""
    if rules is None or rules.on_stall is not OnStall.ELSEWHERE:
        return policy
    known = policy.rules if policy is not None else ()
    if any(rule.cause is Cause.STALLED for rule in known):
        return policy
    return RetryPolicy((*known, usual_rule(Cause.STALLED, 1)))


def refuse_pattern(rules: PaceRules | None) -> PaceRules | None:
    """Of functions. Raises UsageError."""
    if rules is not None and rules.pattern:
        raise UsageError(
            "a pattern for progress is for what a program prints: a function calls "
            "p2psched.progress(done, total)"
        )
    return rules
