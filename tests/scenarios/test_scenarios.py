"""Scripts and what they give: a change of the output is a change of what peers do.

`pytest tests/scenarios --rewrite` writes the output that the scripts have now: read the diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from p2psched.testing.script.language import difference, parse, play, play_on
from p2psched.testing.script.stage import BROKEN
from tests.scenarios.planted import RAFT_BUGS, Bug
from tests.scenarios.planted_damage import DAMAGE_BUGS
from tests.scenarios.planted_drains import DRAIN_BUGS
from tests.scenarios.planted_generations import GENERATION_BUGS
from tests.scenarios.planted_ledger import LEDGER_BUGS
from tests.scenarios.planted_members import MEMBER_BUGS
from tests.scenarios.planted_steals import STEAL_BUGS

HERE: Final = Path(__file__).parent
SCRIPTS: Final = tuple(sorted(HERE.glob("*.txt")))
BUGS: Final = (
    *(*RAFT_BUGS, *MEMBER_BUGS, *DAMAGE_BUGS, *LEDGER_BUGS, *DRAIN_BUGS),
    *(*GENERATION_BUGS, *STEAL_BUGS),
)
# The other half of a pair: what it shows can't be had without what its twin shows.
WITHOUT_A_BUG: Final = {"ledger_restarted_owner_told_before"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_gives_what_it_gave(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.read_text()
    actual = play(expected)
    if request.config.getoption("--rewrite"):
        path.write_text(actual)
    elif actual != expected:
        pytest.fail(difference(expected, actual, path.name), pytrace=False)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_what_it_shows_and_shows_no_broken_promise(path: Path) -> None:
    text = path.read_text()
    first = parse(text)[0]
    assert first.text[0].startswith("# ")
    assert not [line for line in text.splitlines() if BROKEN in line]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.script}: {bug.name}")
def test_a_script_notices_the_bug_that_it_is_about(bug: Bug) -> None:
    expected = (HERE / f"{bug.script}.txt").read_text()
    with bug.plant():
        actual, _ = play_on(expected)
    assert actual != expected
    assert actual.count(bug.sign) > expected.count(bug.sign), difference(
        expected, actual, bug.script
    )


def test_every_script_has_a_bug_that_it_notices() -> None:
    assert {bug.script for bug in BUGS} | WITHOUT_A_BUG == {path.stem for path in SCRIPTS}
