"""What we want to reach, beside what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.stats import Figures, more_is_better, ratios, summary


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, or its ratio to another one, and the value to reach."""

    figure: str
    value: float
    of: str = ""


TARGETS: Final = (
    Target("functions_10k.p2psched.per_s", 50_000),
    Target("functions_1m.p2psched.per_s", 50_000),
    Target("functions_1m.p2psched.peer0_peak_mib", 300),
    Target("functions_1m.p2psched.peer1_peak_mib", 300),
    Target("functions_1m.p2psched.peer2_peak_mib", 300),
    Target("functions_1m.p2psched.show_ms_p95", 100),
    Target("functions_1m.p2psched.jobs_ms_p95", 100),
    Target("round_trip.p2psched.p50_ms", 2.5),
    Target("round_trip.p2psched.p99_ms", 6.0),
    Target("programs.p2psched.per_s", 0.7, of="programs.posix_spawn.per_s"),
    Target("inputs_10ms.p2psched.per_s", 5, of="inputs_10ms.one_each.per_s"),
    Target("clients_64.p2psched.per_s", 4_000),
    Target("results_1mb.p2psched.mb_per_s", 200),
    Target("footprint.p2psched.peer0_pss_mib", 45),
    Target("footprint.p2psched.peer1_pss_mib", 45),
    Target("footprint.p2psched.peer0_idle_percent", 1),
    Target("speed_up.p2psched.speed_up", 1.7),
    Target("commits_1.p2psched.p50_ms", 1.5, of="commits_1.etcd.p50_ms"),
    Target("commits_512.p2psched.per_s", 1, of="commits_512.etcd.per_s"),
    Target("kv_puts_64.p2psched.per_s", 1, of="kv_puts_64.etcd.per_s"),
    Target("locks_8.p2psched.hand_over_p50_ms", 3.0),
    Target("leader_killed_idle.p2psched.p50_s", 0.8),
    Target("leader_killed_idle.p2psched.p99_s", 1.6),
    Target("leader_killed_idle.p2psched.max_s", 3.0),
    Target("leader_killed_busy.p2psched.p99_s", 2.5),
    Target("leader_stopped.p2psched.max_ms", 200),
    Target("owner_killed.p2psched.p50_s", 4.0),
    Target("owner_killed.p2psched.p99_s", 8.0),
    Target("recovery_worker.p2psched.wall_s", 17.5),
    Target("load_reports.p2psched.bytes_per_s", 0.2, of="load_reports.json.bytes_per_s"),
    Target("load_idle.p2psched.gossip_bytes_per_s", 200),
    Target("load_packets.p2psched.packets_per_s", 0.1, of="load_packets.single.packets_per_s"),
    Target("frames.batched.per_1000_tasks", 0.1, of="frames.single.per_1000_tasks"),
)
# Beside whom we stand: our figure divided by theirs.
BESIDE: Final = (
    ("functions_10k", "per_s"),
    ("round_trip", "p50_ms"),
    ("programs", "per_s"),
    ("results_1mb", "mb_per_s"),
    *(
        (f"{kind}_{in_flight}{of}", unit)
        for of in ("", "_of_5")
        for kind in ("commits", "reads")
        for in_flight, unit in ((1, "p50_ms"), (8, "per_s"), (64, "per_s"), (512, "per_s"))
    ),
    *(
        (f"kv_{kind}_{in_flight}", unit)
        for kind in ("puts", "gets")
        for in_flight, unit in ((1, "p50_ms"), (8, "per_s"), (64, "per_s"))
    ),
    ("queue_1", "per_s"),
    ("queue_32", "per_s"),
    ("locks_1", "p50_ms"),
    ("locks_8", "hand_over_p50_ms"),
)
_CONTENDERS: Final = (
    "pool",
    "pool_chunks",
    "posix_spawn",
    "dask",
    "ray",
    "celery",
    "etcd",
    "redis",
)


def verdicts(figures: Figures, targets: tuple[Target, ...] = TARGETS) -> Iterator[str]:
    """One line for each target whose figure was measured."""
    for target in targets:
        ours, theirs = figures.get(target.figure), figures.get(target.of)
        if not ours or (target.of and not theirs):
            continue
        name, found = target.figure, statistics.median(ours)
        if theirs:
            name, found = f"{name} / {target.of}", ratios(ours, theirs).median
        more = more_is_better(target.figure)
        reached = found >= target.value if more else found <= target.value
        sign = ">=" if more else "<="
        yield f"{'reached' if reached else 'MISSED '}  {name} {found:,.2f} {sign} {target.value:,g}"


def comparisons(figures: Figures) -> Iterator[str]:
    """One line for each contender beside us, from runs that were interleaved."""
    for measure, unit in BESIDE:
        ours = figures.get(f"{measure}.p2psched.{unit}")
        for contender in _CONTENDERS:
            theirs = figures.get(f"{measure}.{contender}.{unit}")
            if ours and theirs:
                found = ratios(ours, theirs)
                yield (
                    f"x{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]  "
                    f"{measure}: {unit} of p2psched / {contender}"
                )


def table(figures: Figures) -> Iterator[str]:
    yield f"{'':42}{'min':>13}{'median':>13}{'max':>13}"
    for name, values in figures.items():
        found = summary(values)
        yield f"{name:42}{found.low:13,.2f}{found.median:13,.2f}{found.high:13,.2f}"
