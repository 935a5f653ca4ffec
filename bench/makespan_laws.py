"""How much longer work takes than the least that it could, in groups of up to 1,000 peers with a
slot each, by who decides where it goes and by how long its tasks take.

Under virtual time: peers are the real cores, messages take half a millisecond, a sync as long; the
figures are those of placement and stealing and not of this machine. Three peers hold the ledger,
all others follow. The least is the sum of all tasks over all slots.

    python -m bench.makespan_laws [--peers N ...] [--policies NAME ...] [--works NAME ...]
        [--figures bench/makespan.json] [--draw docs/pictures/makespan.svg]

A hundred take some minutes of one core, a thousand as many for `even` alone. So figures of earlier
runs may be kept in a file: new ones are added, and all of them shown.
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
from p2psched.testing.steal_referee import MOVES_MAX

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
Row = dict[str, float | None]  # work -> makespan over ideal
Figures = dict[int, dict[str, Row]]  # peers -> policy -> that
# Where it goes is not for a policy to say if it is all on one already.


def measure(peers: int, work: Work, policy: str) -> float:
    cluster = SimCluster(seed=SEED, peers=HOLDERS, slots=(1,))
    cluster.referees.steals.moves_max = max(MOVES_MAX, 2 + peers.bit_length())
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


def rows(peers: int, policies: Sequence[str], works: Sequence[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for policy in policies:
        found[policy] = row = {}
        for work in WORKS:
            is_moot = work.name not in works or (work.on_one and policy != ADAPTIVE)
            row[work.name] = None if is_moot else measure(peers, work, policy)
    return found


def with_figures(known: Figures, new: Figures) -> Figures:
    """By the size of the group; what was not measured now is as it was."""
    both: Figures = {}
    for peers in sorted(known.keys() | new.keys()):
        of = both[peers] = {policy: dict(row) for policy, row in known.get(peers, {}).items()}
        for policy, row in new.get(peers, {}).items():
            of.setdefault(policy, {}).update({w: v for w, v in row.items() if v is not None})
    return both


def table(found: Figures) -> str:
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


def draw(found: Figures, path: Path) -> None:
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
        lines = {
            policy: [found[size].get(policy, {}).get(work.name) for size in sizes]
            for policy in policies
        }
        parts += _panel(20 + number * 260, work.name, lines)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(x: int, title: str, lines: dict[str, list[float | None]]) -> list[str]:
    """A dot for each size that was measured."""
    known = [value for line in lines.values() for value in line if value is not None]
    top = max(value - 1 for value in known) * 1.15
    parts = [
        f'<text x="{x}" y="30" font-weight="bold">{title}</text>',
        f'<text x="{x}" y="46">1 to {1 + top:.2f} times the least</text>',
        f'<path d="M{x} 50V220H{x + _PANEL}" fill="none" stroke="#444"/>',
    ]
    for number, line in enumerate(lines.values()):
        step = (_PANEL - 20) / max(1, len(line) - 1)
        dots = [
            (round(x + 10 + i * step), round(220 - 170 * (value - 1) / top))
            for i, value in enumerate(line)
            if value is not None
        ]
        if not dots:
            continue
        at = " ".join(f"{left},{down}" for left, down in dots)
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>' for a, b in dots]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--works", nargs="+", default=[work.name for work in WORKS])
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    path: Path | None = given.draw
    kept: Path | None = given.figures
    policies: list[str] = given.policies
    works: list[str] = given.works
    found = {peers: rows(peers, policies, works) for peers in given.peers}
    if kept is not None:
        known = msgspec.json.decode(kept.read_bytes(), type=Figures) if kept.exists() else {}
        found = with_figures(known, found)
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(table(found))
    if path is not None:
        draw(found, path)


if __name__ == "__main__":
    main()
