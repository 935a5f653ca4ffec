"""The demo's last page, for a terminal of any width from 70 on."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from p2psched.demo.digits import CLASSES, Confusion, Standing, Winner
from p2psched.demo.facts import Check, Facts, Outage, PeerFacts, Rerun

WIDE: Final = 130  # from here on the matrix stands beside the tables
INDENT: Final = 2
TASKS_SHOWN_MAX: Final = 60  # characters of a list of indices


def render(facts: Facts, console: Console) -> None:
    """Print the report."""
    board, matrix = _leaderboard(facts.winner), _matrix(facts.winner.confusion)
    peers = _peers(facts.peers, facts.outage)
    parts: list[RenderableType] = []
    if console.width >= WIDE:
        pair = Table.grid(padding=(0, 4))
        pair.add_row(
            Group(*_section("Leaderboard", board), *_section("Where the tasks ran", peers)),
            Group(*_section(_MATRIX_TITLE, matrix)),
        )
        parts.append(pair)
    else:
        parts += [*_section("Leaderboard", board), *_section(_MATRIX_TITLE, matrix)]
        parts += _section("Where the tasks ran", peers)
    parts += _section("What was run again, and why", _reruns(facts))
    if facts.outage is not None:
        parts += _section("Without a leader", _outage(facts.outage))
    parts += _section("Checks", _checks(facts.checks))
    parts += ["", _verdict(facts)]
    console.print(Group(*parts), highlight=False)


_MATRIX_TITLE: Final = "The winner's answers (rows: true digit)"


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold"), Padding(body, (0, 0, 0, INDENT), expand=False)]


def _table() -> Table:
    return Table(box=None, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def _leaderboard(winner: Winner) -> Table:
    table = _table()
    table.add_column("", justify="right")
    table.add_column("family", no_wrap=True)
    table.add_column("best settings")
    table.add_column("accuracy", justify="right", no_wrap=True)
    for place, standing in enumerate(winner.leaderboard, start=1):
        style = "bold green" if standing == winner.best else ""
        table.add_row(
            str(place), standing.family, _settings(standing), _percent(standing), style=style
        )
    return table


def _settings(standing: Standing) -> str:
    return " ".join(f"{name}={value}" for name, value in standing.settings)


def _percent(standing: Standing) -> str:
    return f"{100 * standing.accuracy:.2f} %"


def _matrix(confusion: Confusion) -> Table:
    table = Table(box=None, show_edge=False, padding=(0, 0), header_style="dim")
    table.add_column("", style="dim")
    for digit in range(CLASSES):
        table.add_column(str(digit), justify="right", min_width=4, no_wrap=True)
    for digit, row in enumerate(confusion):
        table.add_row(str(digit), *(_cell(digit, answer, n) for answer, n in enumerate(row)))
    return table


def _cell(digit: int, answer: int, count: int) -> Text:
    if digit == answer:
        return Text(str(count), style="green")
    return Text(str(count), style="bold red") if count else Text("·", style="dim")


def _peers(peers: tuple[PeerFacts, ...], outage: Outage | None) -> Table:
    table = _table()
    table.add_column("peer")
    table.add_column("tasks", justify="right")
    table.add_column("pids", no_wrap=True)
    table.add_column("at the end", no_wrap=True)
    table.add_column("")
    for peer in peers:
        story = ""
        if outage is not None and peer.name == outage.killed:
            story = f"killed {outage.at_s:.1f} s, back {outage.back_at_s:.1f} s"
        elif outage is not None and peer.name == outage.leader:
            story = f"leads since {outage.at_s + outage.leaderless_ms / 1000:.1f} s"
        pids = " ".join(map(str, peer.pids))
        table.add_row(peer.name, str(peer.tasks), pids, f"{peer.role}, {peer.state}", story)
    return table


def _reruns(facts: Facts) -> RenderableType:
    if not facts.reruns:
        return Text("Nothing.")
    lines = [_rerun(rerun) for rerun in facts.reruns]
    if facts.results_refused:
        lines.append(f"{_results(facts.results_refused)} came late and were refused.")
    return Text("\n".join(lines))


def _results(count: int) -> str:
    return f"{count} result" if count == 1 else f"{count} results"


def _rerun(rerun: Rerun) -> str:
    which = rerun.tasks
    if len(which) > TASKS_SHOWN_MAX:
        which = which[:TASKS_SHOWN_MAX].rpartition(",")[0] + ",…"
    done = ", ".join(f"{count} by {name}" for name, count in sorted(rerun.ended_by.items()))
    what = "task" if rerun.count == 1 else "tasks"
    return f"{rerun.count} {what} that {rerun.peer} owned ({rerun.cause}): {which}; ended {done}"


def _outage(outage: Outage) -> RenderableType:
    moved = (
        f"The client was connected to {outage.killed} and went on through {outage.client_moved_to}."
        if outage.client_was_at_killed
        else f"The client was connected to {outage.client_moved_to} and did not notice."
    )
    return Text.assemble(
        (f"{outage.leaderless_ms:,} ms", "bold"),
        f": {outage.how_measured}. {outage.killed} led, {outage.leader} leads since. {moved}",
    )


def _checks(checks: tuple[Check, ...]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAILED", style="bold red")
        table.add_row(mark, check.text)
    return table


def _verdict(facts: Facts) -> Text:
    times = (
        f"{facts.total_s:.0f} s in all: the cluster took {facts.cluster_s:.0f} s, and beside it "
        f"one process took {facts.alone_s:.0f} s for the same."
    )
    if facts.ok:
        return Text.assemble(("All checks hold. ", "bold green"), times)
    failed = sum(not check.ok for check in facts.checks)
    return Text.assemble((f"{failed} of {len(facts.checks)} checks failed. ", "bold red"), times)
