"""Draws a record of `bench.retention` as SVG: four panels, a line for each run and part.

Pure but for the file that it writes. Of each figure the highest of the three peers is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Run = Mapping[str, Sequence[object]]

WIDTH: Final = 800
_PANEL: Final = (320, 190)
_AT: Final = ((58, 62), (458, 62), (58, 352), (458, 352))
_HEIGHT: Final = 610
_TICKS: Final = 4
_COLOURS: Final = ("#1b6ca8", "#c8553d", "#3b8f5a", "#7b5ea7")
_DASH: Final = {"defaults": ' stroke-dasharray="6 4"', "bounded": ""}


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    colour: str
    dash: str
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    lines: list[Line]


def draw(runs: Mapping[str, Run], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(svg(runs)) + "\n")


def svg(runs: Mapping[str, Run]) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12" fill="#222">'
    )
    yield f'<rect width="{WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    yield from _head()
    for (x, y), panel in zip(_AT, panels(runs), strict=True):
        yield f'<g transform="translate({x} {y})">'
        yield from _panel(panel)
        yield "</g>"
    yield "</svg>"


def _head() -> Iterator[str]:
    """What solid and dashed lines mean, once for all panels."""
    entries = (
        ("bounded", 58, "kept 10 s and 32 MiB of results"),
        ("defaults", 320, "defaults (7 days, 16 GiB): nothing is forgotten yet"),
    )
    for name, x, text in entries:
        yield f'<path d="M{x} 20h36" stroke="#222" stroke-width="2"{_DASH[name]}/>'
        yield f'<text x="{x + 44}" y="24">{text}</text>'


def panels(runs: Mapping[str, Run]) -> list[Panel]:
    return [
        Panel(
            "Memory of a peer, jobs of 200 tasks or 20 x 200 KB",
            "MiB (PSS)",
            [*_lines(runs, "mixed", "pss_mib", _COLOURS[0], "")],
        ),
        Panel(
            "Disk of a peer, the same jobs",
            "MiB",
            [
                *_lines(runs, "mixed", "blobs_mib", _COLOURS[1], "large results"),
                *_lines(runs, "mixed", "results_mib", _COLOURS[2], "results.db"),
                *_lines(runs, "mixed", "ledger_mib", _COLOURS[3], "ledger"),
            ],
        ),
        Panel(
            "Memory of a peer, jobs of one task, 64 clients",
            "MiB (PSS)",
            [*_lines(runs, "small", "pss_mib", _COLOURS[0], "")],
        ),
        Panel(
            "Disk of a peer, jobs of one task",
            "MiB",
            [
                *_lines(runs, "small", "results_mib", _COLOURS[2], "results.db"),
                *_lines(runs, "small", "ledger_mib", _COLOURS[3], "ledger"),
            ],
        ),
    ]


def _lines(
    runs: Mapping[str, Run], kind: str, figure: str, colour: str, label: str
) -> Iterator[Line]:
    for kept, dash in _DASH.items():
        run = runs.get(f"{kind}-{kept}")
        if run is None:
            continue
        jobs = [_number(value) for value in run["jobs"]]
        values = [max(_numbers(value)) for value in run[figure]]
        yield Line(label, colour, dash, list(zip(jobs, values, strict=True)))


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def _numbers(value: object) -> list[float]:
    assert isinstance(value, list)
    return [_number(one) for one in value]


def _panel(panel: Panel) -> Iterator[str]:
    width, height = _PANEL
    points = [point for line in panel.lines for point in line.points] or [(1.0, 1.0)]
    across, up = _top(max(x for x, _ in points)), _top(max(y for _, y in points))
    yield f'<text x="0" y="-12" font-weight="bold">{panel.title}</text>'
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        y, x = height * (1 - share), width * share
        yield f'<path d="M0 {y:.1f}H{width}" stroke="#ddd"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{up * share:,.4g}</text>'
        yield f'<text x="{x:.1f}" y="{height + 16}" text-anchor="middle">'
        yield f"{across * share:,.0f}</text>"
    yield f'<path d="M0 0V{height}H{width}" fill="none" stroke="#222"/>'
    yield f'<text x="{width / 2:.0f}" y="{height + 34}" text-anchor="middle">jobs that ended</text>'
    yield f'<text transform="translate(-44 {height / 2:.0f}) rotate(-90)" text-anchor="middle">'
    yield f"{panel.unit}</text>"
    for line in panel.lines:
        path = "L".join(
            f"{x / across * width:.1f} {height * (1 - y / up):.1f}" for x, y in line.points
        )
        yield f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"{line.dash}/>'
    yield from _legend(panel)


def _legend(panel: Panel) -> Iterator[str]:
    labels = {line.label: line.colour for line in panel.lines if line.label}
    for place, (label, colour) in enumerate(labels.items()):
        y = 10 + 17 * place
        yield f'<path d="M12 {y}h20" stroke="{colour}" stroke-width="3"/>'
        yield f'<text x="38" y="{y + 4}">{label}</text>'


def _top(value: float) -> float:
    """A round number at or above it, that four ticks divide well."""
    step = 1.0
    while step * 40 < value:
        step *= 10
    return next(
        step * top for top in (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40) if step * top >= value
    )
