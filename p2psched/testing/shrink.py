"""Find a smaller run that breaks the same promise: fewer faults, lower rates, fewer events.

Each change makes another run, so the same bug may need another seed in it: a few are tried. What
is found is no less a proof for that. The search is greedy and bounded by a number of runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from p2psched.testing.faults import DEFAULTS, Faults, Value, changed, changes_of
from p2psched.testing.run import Failure, run_seed
from p2psched.testing.simulate import Options

RUNS_MAX: Final = 300
SEEDS_TRIED: Final = 4  # for one change; the seed of the last failure is the first of them
EVENTS_MIN: Final = 50
RARE_MS: Final = 60_000  # a fault that comes more seldom is as good as none
SHARE_MIN: Final = 0.01
_PROMISE: Final = re.compile(r"\b[A-Z]\d+(?=:)")


def promise_of(why: str) -> str:
    """The promise that a failure names, or all that it says up to a colon."""
    found = _PROMISE.search(why)
    return found[0] if found else why.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Shrunk:
    failure: Failure
    options: Options
    runs: int


def shrink(
    failure: Failure,
    options: Options,
    *,
    runs_max: int = RUNS_MAX,
    on_run: Callable[[], object] = lambda: None,
) -> Shrunk:
    """`failure`: of a run with `options`. `on_run` is called before each run."""
    assert runs_max > 0
    runs = 0
    options = replace(options, faults=failure.faults, changes=(), peers=failure.peers)
    options = _up_to(failure, options)
    promise = promise_of(failure.why)

    def still_fails(candidate: Options) -> Failure | None:
        nonlocal runs
        for offset in range(SEEDS_TRIED):
            if runs >= runs_max:
                return None
            runs += 1
            result = run_seed(failure.seed + offset, candidate)
            on_run()
            if isinstance(result, Failure) and promise_of(result.why) == promise:
                return result
        return None

    changed = True
    while changed and runs < runs_max:
        changed = False
        for reduce in REDUCTIONS:
            while (candidate := reduce(options)) not in (None, options):
                assert candidate is not None
                found = still_fails(candidate)
                if found is None:
                    break
                failure, options, changed = found, _up_to(found, candidate), True
    return Shrunk(failure, options, runs)


def _up_to(failure: Failure, options: Options) -> Options:
    """What comes behind the failure doesn't matter: until then it is the same run."""
    return replace(options, events=min(options.events, failure.events))


# --- what makes a run smaller; None where it is as small as can be --------------------------------

Reduction = Callable[[Options], Options | None]


def _plain_jobs(options: Options) -> Options | None:
    return replace(options, poison=False, hanging=False, keeping=False)


def _no_healing(options: Options) -> Options | None:
    return replace(options, healing=False)


def _fewer_peers(options: Options) -> Options | None:
    peers = (options.peers or 1) - 1
    return replace(options, peers=peers) if peers else None


def _fewer_jobs(options: Options) -> Options | None:
    return replace(options, jobs_max=options.jobs_max // 2) if options.jobs_max > 1 else None


def _fewer_events(options: Options) -> Options | None:
    half = options.events // 2
    return replace(options, events=half) if half >= EVENTS_MIN else None


def _without(name: str) -> Reduction:
    def reduce(options: Options) -> Options | None:
        return _with(options, name, DEFAULTS[name])

    return reduce


def _less_of(name: str) -> Reduction:
    """Half the share, half as often, half as long."""

    def reduce(options: Options) -> Options | None:
        now, default = changes_of(options.faults or Faults()).get(name), DEFAULTS[name]
        if now is None or isinstance(now, bool | tuple) or isinstance(default, tuple):
            return None
        if name.endswith("_every_ms"):
            less: Value = int(now) * 2
            return _with(options, name, less) if int(now) < RARE_MS else None
        less = now / 2 if isinstance(default, float) else int(now) // 2
        still_some = now > SHARE_MIN if isinstance(default, float) else less > default
        return _with(options, name, less) if still_some else None

    return reduce


def _with(options: Options, name: str, value: Value) -> Options:
    assert options.faults is not None
    return replace(options, faults=changed(options.faults, {name: value}))


REDUCTIONS: Final[tuple[Reduction, ...]] = (
    _plain_jobs,
    _no_healing,
    *map(_without, DEFAULTS),
    _fewer_peers,
    _fewer_jobs,
    _fewer_events,
    *map(_less_of, DEFAULTS),
)
