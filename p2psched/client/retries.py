"""Rules for retries as people write them.

    policy({"timeout": "2", "exit": "5,delay=exp:1s:60s,demote", "any": 1})

A rule is a number of further attempts, and options behind commas: `delay=exp:FIRST:CAP`,
`delay=fixed:TIME`, `delay=none`, `elsewhere`, `anywhere`, `demote`, `no-demote`, and one of `info`,
`warn`, `error`, `fatal`. What is not said is as `model.retry.usual_rule` has it. `any` stands for
all causes that aren't named, but for `lease-lost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from p2psched.client.durations import duration_ms
from p2psched.model.errors import UsageError
from p2psched.model.job import Cause
from p2psched.model.retry import (
    CAUSES,
    NO_DELAY,
    RULED,
    Delay,
    RetryPolicy,
    RetryRule,
    Severity,
    TimeLimits,
    usual_rule,
)

ANY: Final = "any"
OPTIONS: Final = (
    *("delay=exp:1s:60s", "delay=fixed:5s", "delay=none"),
    *("elsewhere", "anywhere", "demote", "no-demote"),
    *("info", "warn", "error", "fatal"),
)
_SEVERITIES: Final = {severity.name.lower(): severity for severity in Severity}

Rule = RetryRule | int | str
Retry = RetryPolicy | Mapping[str, Rule]


def policy(retry: Retry | None) -> RetryPolicy | None:
    """Raises UsageError for what is no policy."""
    if retry is None or isinstance(retry, RetryPolicy):
        return retry
    unknown = [cause for cause in retry if cause != ANY and cause not in RULED]
    if unknown:
        known = ", ".join((*RULED, ANY))
        raise UsageError(f"there is no rule for {unknown[0]!r}: rules are for {known}")
    rules = []
    for cause in RULED:
        wanted = retry.get(cause.value, retry.get(ANY) if cause in CAUSES else None)
        if wanted is not None:
            rules.append(_rule(cause, wanted))
    return RetryPolicy(tuple(rules)) if rules else None


def times(
    queue_s: float | None, total_s: float | None, grace_s: float | None = None
) -> TimeLimits | None:
    """Raises UsageError."""
    if queue_s is None and total_s is None and grace_s is None:
        return None
    try:
        grace_ms = None if grace_s is None else round(grace_s * 1000)
        return TimeLimits(_ms(queue_s), _ms(total_s), grace_ms)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000)) if seconds > 0 else 0


def policy_of_words(texts: list[str]) -> RetryPolicy | None:
    """Of `CAUSE=N[,option...]`, each. Raises UsageError."""
    rules: dict[str, Rule] = {}
    for text in texts:
        cause, equals, rule = text.partition("=")
        if not equals:
            raise UsageError(f"--retry {text[:64]!r} is no rule: write it like timeout=2,elsewhere")
        if cause in rules:
            raise UsageError(f"--retry names {cause[:32]!r} twice")
        rules[cause] = rule
    return policy(rules)


def _rule(cause: Cause, wanted: Rule) -> RetryRule:
    if isinstance(wanted, RetryRule):
        return msgspec.structs.replace(wanted, cause=cause)
    number, *options = str(wanted).split(",")
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"a rule begins with a number of further attempts, not with {number!r}")
    try:
        rule = usual_rule(cause, int(number[:9]))
        for option in options:
            rule = _with(rule, option)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return rule


def _with(rule: RetryRule, option: str) -> RetryRule:
    replace = msgspec.structs.replace
    if option in _SEVERITIES:
        return replace(rule, severity=_SEVERITIES[option])
    if option in {"elsewhere", "anywhere"}:
        return replace(rule, elsewhere=option == "elsewhere")
    if option in {"demote", "no-demote"}:
        return replace(rule, demote=option == "demote")
    if option.startswith("delay="):
        return replace(rule, delay=_delay(option.removeprefix("delay=")))
    raise UsageError(f"there is no option {option[:32]!r} of a rule: {', '.join(OPTIONS)}")


def _delay(text: str) -> Delay:
    match text.split(":"):
        case ["none"]:
            return NO_DELAY
        case ["fixed", time]:
            fixed_ms = duration_ms(time)
            return Delay(fixed_ms, fixed_ms, fixed=True)
        case ["exp", first, cap]:
            return Delay(duration_ms(first), duration_ms(cap))
    raise UsageError(
        f"{text[:32]!r} is no delay: write it like exp:1s:60s (drawn from 0 to 1 s, then to 2 s, "
        "and to 60 s at most), fixed:5s or none"
    )
