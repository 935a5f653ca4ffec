"""`--priority` and `--preemptible` as people type them: the commands of docs/priorities.md run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/priorities.md").read_text()
BLOCKS: Final = dict(re.findall(r"^```(sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SUBMITS: Final = BLOCKS["sh"].splitlines()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """A cluster of one peer."""
    with LiveCluster(tmp_path_factory.mktemp("priorities")) as cluster:
        cluster.start("a", slots=2)
        yield cluster


@pytest.mark.parametrize("command", SUBMITS)
def test_a_submit_of_the_page_runs(one: LiveCluster, command: str) -> None:
    done = one.run(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr


def test_a_job_says_how_it_stands_to_others(one: LiveCluster) -> None:
    way = ("--preemptible", "--preempt-after", "90s", "--checkpoint", "state")
    one.ok("submit-job", "--priority", "-5", *way, "--name", "low", "--wait", "--", "true")
    job = json.loads(one.ok("job", "show", "low", "-o", "json"))["job"]
    found = [job[name] for name in ("priority", "preemptible", "preempt_after_s", "preempted")]
    assert found == [-5, True, 90, 0]
    assert "-5, preemptible after 90 s" in one.ok("job", "show", "low")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--preemptible",), "let it save some (--checkpoint DIR"),
        (("--preemptible", "--checkpoint", "s", "--start", "once"), "makes way for nobody"),
        (("--preemptible", "--checkpoint", "s", "--replicas", "2"), "makes way for nobody"),
        (("--preempt-after", "3s"), "--preempt-after is for --preemptible"),
        (("--priority", "1001"), "less than or equal to 1000"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_word(
    one: LiveCluster, options: tuple[str, ...], says: str
) -> None:
    done = one.run("submit-job", *options, "--", "true")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
