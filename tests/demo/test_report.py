"""The last page: it says what happened at any width, and never that all is well when it is not."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from p2psched.demo.facts import Check, Facts
from p2psched.demo.progress import Stage
from p2psched.demo.report import render
from tests.demo.facts import facts


def _page(found: Facts, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    render(found, console)
    return console.export_text()


@pytest.mark.parametrize("width", [70, 80, 120, 160])
def test_the_report_names_winner_peers_reruns_and_the_outage_at_any_width(width: int) -> None:
    page = _page(facts(), width)
    assert max(map(len, page.splitlines())) <= width
    words = " ".join(page.split())
    for said in ("one k=1 90.00 %", "101 104", "2 tasks that a owned (peer-lost): 1-2"):
        assert said in words, said
    assert "700 ms" in words
    assert "went on through c" in words
    assert "All checks hold." in words


def test_a_failed_check_is_shown_and_makes_the_whole_fail() -> None:
    found = facts(checks=(Check(text="it holds", ok=True), Check(text="it broke", ok=False)))
    page = _page(found, 80)
    assert not found.ok
    assert "FAILED  it broke" in page
    assert "1 of 2 checks failed." in page
    assert "All checks hold" not in page


def test_progress_away_from_a_terminal_is_plain_lines_without_the_finished() -> None:
    out = io.StringIO()
    with Stage(Console(file=out, width=80)) as stage:
        stage.count("alone", 4, 4)
        stage.count("cluster", 1, 4)
        stage.tell("kill -9 [7]")
    lines = [line.partition(" s  ")[2] for line in out.getvalue().splitlines()]
    assert lines == ["cluster 1/4", "kill -9 [7]"]
