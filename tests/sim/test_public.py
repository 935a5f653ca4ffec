"""`p2psched.testing` as its users see it, and the examples of its page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from p2psched import testing

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/simulation.md"
EXAMPLES: Final = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("name", testing.__all__)
def test_what_is_public_is_there_and_says_what_it_is(name: str) -> None:
    assert (getattr(testing, name).__doc__ or "").strip()


def test_what_is_public_for_a_type_checker_is_public() -> None:
    tree = ast.parse(Path(testing.__file__).read_text())
    named = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert named == set(testing.__all__)


def test_other_names_are_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="nope"):
        testing.nope  # noqa: B018  # that is the test


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [line for line in EXAMPLES[number].splitlines() if "  # prints " in line]
    exec(EXAMPLES[number], {})
    said = capsys.readouterr().out.splitlines()
    assert said == [line.partition("  # prints ")[2] for line in shown]


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 3
