"""What gossip costs and how fast it is, in groups of 10, 100 and 1,000, each beside its law.

Under virtual time: the figures are those of the protocol and not of this machine.

    python -m bench.gossip_laws [--peers N ...] [--draw docs/pictures/gossip.svg]

A thousand take two minutes of one core, and half a GiB.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from p2psched.model.load import Liveness
from p2psched.testing.gossip_sim import GossipSim

SIZES: Final = (10, 100, 1_000)
SEED: Final = 7
KILLS: Final = 5  # one after another; the mean of them
IDLE_MS: Final = 30_000
_WIDTH, _HEIGHT, _PANEL = 800, 270, 210
_COLOUR, _LAW = "#1b6ca8", "#c8553d"


@dataclass(frozen=True, slots=True)
class Figures:
    peers: int
    bytes_per_s: float  # sent by each, idle, with the heads of IP
    joined_ms: int  # from when all start, knowing one, until all hold all for alive
    suspect_ms: int  # from a death until somebody suspects it
    dead_ms: int  # and until all hold it for dead


def measure(peers: int) -> Figures:
    sim = GossipSim(peers, seed=SEED, loss=0.01)
    sim.start_all()
    joined_ms = sim.run_until(sim.agree, within_ms=120_000, step_ms=20)
    sim.run(10_000)
    rate = sim.bytes_per_s(IDLE_MS)
    first_ms = dead_ms = 0
    for number in range(peers - KILLS, peers):
        sim.seen.clear()
        sim.kill(number)
        died_ms = sim.now_ms
        sim.run_until(partial(sim.all_see, number, Liveness.DEAD), within_ms=120_000, step_ms=200)
        first_ms += min(s.at_ms for s in sim.seen if s.of == number) - died_ms
        dead_ms += sim.now_ms - died_ms
    return Figures(peers, rate, joined_ms, first_ms // KILLS, dead_ms // KILLS)


def table(found: list[Figures]) -> str:
    first = found[0]
    lines = [
        (
            "| peers | bytes a second, each (law: constant) | all know all (law: log n) "
            "| first suspicion (law: constant) | dead to all (law: log n) |"
        ),
        "|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        growth = math.log(row.peers) / math.log(first.peers)
        lines.append(
            f"| {row.peers:,} | {row.bytes_per_s:.0f} ({first.bytes_per_s:.0f}) "
            f"| {row.joined_ms / 1000:.1f} s ({first.joined_ms * growth / 1000:.1f}) "
            f"| {row.suspect_ms / 1000:.1f} s ({first.suspect_ms / 1000:.1f}) "
            f"| {row.dead_ms / 1000:.1f} s ({first.dead_ms * growth / 1000:.1f}) |"
        )
    return "\n".join(lines)


def draw(found: list[Figures], path: Path) -> None:
    """Three panels: what was measured, and the law through the smallest group."""
    panels = [
        ("bytes a second, each", [f.bytes_per_s for f in found], False),
        ("all know all, s", [f.joined_ms / 1000 for f in found], True),
        ("dead to all, s", [f.dead_ms / 1000 for f in found], True),
    ]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        (
            f'<text x="20" y="{_HEIGHT - 8}">blue: measured; red: the law through the smallest '
            f"group; peers: {', '.join(f'{row.peers:,}' for row in found)}</text>"
        ),
    ]
    sizes = [row.peers for row in found]
    for number, (title, values, rises) in enumerate(panels):
        parts += _panel(20 + number * 260, title, sizes, values, rises=rises)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(x: int, title: str, sizes: list[int], values: list[float], *, rises: bool) -> list[str]:
    growth = [math.log(size) / math.log(sizes[0]) if rises else 1.0 for size in sizes]
    law = [values[0] * times for times in growth]
    top = max(*values, *law) * 1.15

    def line(points: list[float], colour: str, dash: str = "") -> str:
        step = (_PANEL - 20) / (len(sizes) - 1)
        at = " ".join(
            f"{x + 10 + i * step:.0f},{220 - 170 * point / top:.0f}"
            for i, point in enumerate(points)
        )
        return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'

    return [
        f'<text x="{x}" y="30" font-weight="bold">{title}</text>',
        f'<text x="{x}" y="46">0 to {top:.3g}; measured '
        + ", ".join(f"{value:.3g}" for value in values)
        + "</text>",
        f'<path d="M{x} 50V220H{x + _PANEL}" fill="none" stroke="#444"/>',
        line(law, _LAW, ' stroke-dasharray="6 4"'),
        line(values, _COLOUR),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    path: Path | None = given.draw
    found = [measure(peers) for peers in given.peers]
    print(table(found))
    if path is not None:
        draw(found, path)


if __name__ == "__main__":
    main()
