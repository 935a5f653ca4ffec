"""Rules for retries, and limits of time, that jobs of a simulation have."""

from __future__ import annotations

import random
from typing import Final

from msgspec.structs import replace

from p2psched.model.job import Cause, JobSpec
from p2psched.model.retry import (
    NO_DELAY,
    Delay,
    RetryPolicy,
    RetryRule,
    Severity,
    TimeLimits,
)

JOBS_MAX: Final = 12
CAUSES: Final = (Cause.EXIT, Cause.SIGNAL, Cause.EXCEPTION, Cause.TIMEOUT, Cause.NO_SPACE)
FAILING_US_MAX: Final = 500_000  # of all tasks of a job most of whose attempts fail
DELAYS: Final = (
    NO_DELAY,
    Delay(700, 700, fixed=True),
    Delay(100, 1_000),
    Delay(400, 500),
    Delay(10, 3_000),
    Delay(1_500, 1_500),
)
SEVERITIES: Final = (*(Severity.ERROR,) * 4, Severity.INFO, Severity.WARN, Severity.FATAL)
TIMES: Final = (TimeLimits(queue_ms=300), TimeLimits(total_ms=2_000), TimeLimits(1_000, 4_000))


class Rules:
    """Drawn apart: a seed without them is the run that it was before there were any."""

    def __init__(self, seed: int, *, wanted: bool) -> None:
        self._rng = random.Random(f"rules {seed}")
        self._jobs_left = self._rng.choice((0, JOBS_MAX)) * wanted

    def draw(self, spec: JobSpec) -> JobSpec:
        rng = self._rng
        if not self._jobs_left or rng.random() < 0.3:
            return spec
        self._jobs_left -= 1
        causes = rng.sample(CAUSES, rng.randint(1, 4))
        policy = RetryPolicy(tuple(self._rule(cause) for cause in causes))
        times = rng.choice(TIMES) if rng.random() < 0.35 else None
        mean_us, _, *words = spec.name.split()
        if int(mean_us) * len(spec.tasks) <= FAILING_US_MAX:
            spec = replace(spec, name=" ".join((mean_us, "800", *words)))
        return replace(spec, retry=policy, times=times)

    def _rule(self, cause: Cause) -> RetryRule:
        """Few attempts: all of it has to end in time."""
        rng = self._rng
        return RetryRule(
            cause,
            rng.choice((0, 1, 2, 3, 3)) if cause is not Cause.NO_SPACE else 12,
            rng.choice(DELAYS),
            elsewhere=rng.random() < 0.5,
            demote=rng.random() < 0.3,
            severity=rng.choice(SEVERITIES) if cause is not Cause.NO_SPACE else Severity.INFO,
        )
