"""How much longer work takes than the least that it could, in groups of 10 and 100 peers with a
slot each, by who decides where it goes and by how long its tasks take.

Under virtual time: peers are the real cores, messages take half a millisecond, a sync as long; the
figures are those of placement and stealing and not of this machine. Three peers hold the ledger,
all others follow. The least is the sum of all tasks over all slots.

    python -m bench.makespan_laws [--peers N ...] [--policies NAME ...]
        [--draw docs/pictures/makespan.svg]

A hundred take some minutes of one core, more take long.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.commands import Place
from p2psched.model.job import JobSpec
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_jobs import Lengths, length_us, sim_job

SIZES: Final = (10, 100)
ADAPTIVE: Final = "adaptive"
POLICIES: Final = (ADAPTIVE, "pull", "round-robin", "power-of-two", "task-type")
SEED: Final = 7
HOLDERS: Final = 3
TASKS_EACH: Final = 40  # a peer
TASK_US: Final = 50_000
SETTLE_MS: Final = 3_000
PATIENCE_MS: Final = 600_000
_WIDTH, _HEIGHT, _PANEL = 800, 290, 210
_COLOURS: Final = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e", "#b8860b")


class Work(NamedTuple):
    name: str
    lengths: Lengths
    on_one: bool = False  # all of it belongs to one peer first


WORKS: Final = (
    Work("even", Lengths.EVEN),
    Work("uneven", Lengths.UNEVEN),
    Work("all on one", Lengths.EVEN, on_one=True),
)
# Where it goes is not for a policy to say if it is all on one already.
Row = dict[str, float | None]  # work -> makespan over ideal


def measure(peers: int, work: Work, policy: str) -> float:
    cluster = SimCluster(seed=SEED, peers=HOLDERS, slots=(1,))
    followers = Followers(cluster, peers - HOLDERS)
    for follower in followers.all:
        follower.slots = 1
    new, shadow = {follower.id for follower in followers.all}, cluster.referees.shadow
    cluster.run_until(
        lambda: shadow.level == KNOWN_LEVEL and new <= shadow.live.keys(), within_ms=120_000
    )
    cluster.run_for(SETTLE_MS)
    tasks = TaskSet.of(0, TASKS_EACH * peers)
    spec = sim_job(tasks, mean_us=TASK_US, lengths=work.lengths, function=True)
    spec = msgspec.structs.replace(spec, policy=policy if policy != ADAPTIVE else "")
    began_us = cluster.now_us
    job = cluster.submit(spec)
    if work.on_one:
        cluster.run_until(lambda: cluster.state_of(job) == "running", within_ms=5_000)
        victim = cluster.peers[1]
        cluster.ask(Place(job, tasks, victim.id, victim.scheduler.info.incarnation))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=PATIENCE_MS)
    over_ideal = (cluster.now_us - began_us) * peers / ideal_us(spec)
    print(f"{peers} {policy} {work.name} {over_ideal:.3f}", file=sys.stderr, flush=True)
    return over_ideal


def ideal_us(spec: JobSpec) -> int:
    """Of one slot."""
    return sum(length_us(spec.name, index) or TASK_US for index in spec.tasks)


def rows(peers: int, policies: Sequence[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for policy in policies:
        found[policy] = row = {}
        for work in WORKS:
            is_moot = work.on_one and policy != ADAPTIVE
            row[work.name] = None if is_moot else measure(peers, work, policy)
    return found


def table(found: dict[int, dict[str, Row]]) -> str:
    heads = [f"{work.name}, {peers:,}" for work in WORKS for peers in found]
    lines = [f"| policy | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for policy in next(iter(found.values())):
        cells = []
        for work in WORKS:
            for of in found.values():
                value = of.get(policy, {}).get(work.name)
                cells.append("" if value is None else f"{value:.2f}")
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[int, dict[str, Row]], path: Path) -> None:
    """A panel for each kind of work, a line for each policy, from 1.0 on."""
    sizes, policies = list(found), list(next(iter(found.values())))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="20" y="{_HEIGHT - 26}">peers: {", ".join(f"{size:,}" for size in sizes)}</text>',
    ]
    for number, policy in enumerate(policies):
        x, colour = 20 + 150 * number, _COLOURS[number % len(_COLOURS)]
        parts.append(f'<text x="{x}" y="{_HEIGHT - 8}" fill="{colour}">{policy}</text>')
    for number, work in enumerate(WORKS):
        lines = {policy: [found[size][policy][work.name] for size in sizes] for policy in policies}
        known = {
            policy: [value for value in line if value is not None] for policy, line in lines.items()
        }
        parts += _panel(20 + number * 260, work.name, known)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(x: int, title: str, lines: dict[str, list[float]]) -> list[str]:
    top = max(value - 1 for line in lines.values() for value in line) * 1.15
    parts = [
        f'<text x="{x}" y="30" font-weight="bold">{title}</text>',
        f'<text x="{x}" y="46">1 to {1 + top:.2f} times the least</text>',
        f'<path d="M{x} 50V220H{x + _PANEL}" fill="none" stroke="#444"/>',
    ]
    for number, line in enumerate(lines.values()):
        step = (_PANEL - 20) / max(1, len(line) - 1)
        at = " ".join(
            f"{x + 10 + i * step:.0f},{220 - 170 * (value - 1) / top:.0f}"
            for i, value in enumerate(line)
        )
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    path: Path | None = given.draw
    policies: list[str] = given.policies
    found = {peers: rows(peers, policies) for peers in given.peers}
    print(table(found))
    if path is not None:
        draw(found, path)


if __name__ == "__main__":
    main()
