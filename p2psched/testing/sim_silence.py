"""Jobs of a simulation some of whose tasks fall silent for good, and are ended for that by those
who watch how far tasks are (`core.pacing`): their attempt ends as `stalled`, and the job's rule for
that follows. All else that they run says all the time how far it is.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from p2psched.model.job import Cause, JobSpec
from p2psched.model.pace_rules import OnStall, PaceRules
from p2psched.model.retry import RetryPolicy, RetryRule, usual_rule
from p2psched.testing.sim_jobs import kills_none, with_hangs

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

JOBS_MAX: Final = 6
TASKS_MAX: Final = 4  # of such a job
MEAN_US_MAX: Final = 200_000
HEARTBEATS_MS: Final = (1_000, 2_000)
HANG_PERMILLE: Final = 500


class Silences:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, cluster: SimCluster, seed: int, *, wanted: bool) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"silences {seed}")
        self._jobs_left = self._rng.choice((0, 0, JOBS_MAX)) * wanted

    def draw(self, spec: JobSpec) -> JobSpec:
        is_quick = int(spec.name.split()[0]) <= MEAN_US_MAX or bool(spec.checkpoint)
        is_quick = is_quick and len(spec.tasks) <= TASKS_MAX
        is_fit = is_quick and kills_none(spec.name) and spec.timeout_ms is None
        if not self._jobs_left or not is_fit or spec.backs_up or spec.hold is not None:
            return spec
        self._jobs_left -= 1
        self._cluster.happened["job whose tasks fall silent"] += 1
        spec = with_hangs(spec, hang_permille=HANG_PERMILLE, timeout_ms=None)
        known: tuple[RetryRule, ...] = spec.retry.rules if spec.retry is not None else ()
        rule = usual_rule(Cause.STALLED, self._rng.randrange(4))
        pace = PaceRules(self._rng.choice(HEARTBEATS_MS), OnStall.ELSEWHERE)
        return replace(spec, pace=pace, retry=RetryPolicy((*known, rule)))
