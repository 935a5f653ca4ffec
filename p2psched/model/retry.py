"""What becomes of a task whose attempt has ended badly: a table, by cause."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from p2psched.model import limits
from p2psched.model.cause import Cause

DELAY_MS_MAX: Final = 24 * 3600 * 1000
GRACE_MS_MAX: Final = 3600 * 1000
# A rule may be given for these. The other ends are nobody's wish (`cancelled`), cost a task nothing
# (`peer-lost`), or would be the same each time (`too-large`, `not-serialisable`).
CAUSES: Final = (
    Cause.EXIT,
    Cause.EXCEPTION,
    Cause.SIGNAL,
    Cause.TIMEOUT,
    Cause.NOT_STARTABLE,
    Cause.NO_SPACE,
    Cause.OOM,
    Cause.STALLED,
)
RULED: Final = (*CAUSES, Cause.LEASE_LOST)  # of exclusive tasks
LAPSES_MAX: Final = limits.RETRIES_MAX  # of leases on a task, where no rule says otherwise


class Delay(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Time from the end of an attempt to where the next one may be placed, in ledger time.

    Fixed: always `first_ms`. Else with full jitter: anything from 0 to a bound, which is `first_ms`
    at first, doubles with each further end by the same cause, and is `cap_ms` at most."""

    first_ms: int
    cap_ms: int
    fixed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.first_ms <= self.cap_ms <= DELAY_MS_MAX:
            raise ValueError("a delay is 0 to 24 hours, and its cap is not below its start")

    def bound_ms(self, before: int) -> int:
        """Of the delay after an end that `before` others by this cause went before."""
        if self.fixed:
            return self.first_ms
        return min(self.cap_ms, self.first_ms << min(before, 64))


NO_DELAY: Final = Delay(0, 0, fixed=True)
BACKOFF: Final = Delay(1_000, 60_000)


class Severity(enum.IntEnum):
    """What else happens when a cause is met. An alert is told once for each job and cause."""

    INFO = 0  # nothing
    WARN = 1  # an alert, at the first such end
    ERROR = 2  # an alert, once a task has no attempt left
    FATAL = 3  # an alert, and the job stops: nothing of it runs any more


class RetryRule(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What follows the ends of attempts by one cause."""

    cause: Cause
    most: int  # further attempts of a task after ends by this cause
    delay: Delay = NO_DELAY
    elsewhere: bool = False  # not on a peer where it ended so, while another one is fit
    demote: bool = False  # behind all that was submitted until then
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        if self.cause not in RULED:
            raise ValueError(
                f"there is no rule for {self.cause.value!r}: rules are for {', '.join(RULED)}"
            )
        if type(self.most) is not int or not 0 <= self.most <= limits.RETRIES_MAX:
            raise ValueError(f"further attempts are 0 to {limits.RETRIES_MAX}, not {self.most!r}")


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """At most one rule for each cause. What has none is retried as the job's `retries` say."""

    rules: tuple[RetryRule, ...]

    def __post_init__(self) -> None:
        if len({rule.cause for rule in self.rules}) != len(self.rules):
            raise ValueError("there are two rules for one cause")

    def rule_for(self, cause: Cause) -> RetryRule | None:
        return next((rule for rule in self.rules if rule.cause is cause), None)


def usual_rule(cause: Cause, most: int) -> RetryRule:
    """A good rule, of which only the number is given."""
    if cause in {Cause.TIMEOUT, Cause.STALLED}:
        return RetryRule(cause, most, elsewhere=True, demote=True)
    if cause is Cause.LEASE_LOST:  # it has waited for long enough
        return RetryRule(cause, most)
    is_the_peers = cause in {Cause.SIGNAL, Cause.NOT_STARTABLE, Cause.NO_SPACE, Cause.OOM}
    return RetryRule(cause, most, BACKOFF, elsewhere=is_the_peers)


class TimeLimits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of a whole job, in ledger time from its submit; and how its attempts are ended."""

    queue_ms: int | None = None  # what nobody owns by then, and never has, is given up
    total_ms: int | None = None  # what has not ended by then is
    grace_ms: int | None = None  # of an attempt, from SIGTERM to SIGKILL; None: as its peer has it

    def __post_init__(self) -> None:
        for limit_ms in (self.queue_ms, self.total_ms):
            if limit_ms is not None and not 1 <= limit_ms <= limits.KEEP_MS_MAX:
                raise ValueError("a limit of time is more than nothing")
        if self.grace_ms is not None and not 0 <= self.grace_ms <= GRACE_MS_MAX:
            raise ValueError("a grace is 0 to one hour")
