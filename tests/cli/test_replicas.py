"""`--replicas` and `--speculate` as people type them: the commands of docs/replicas.md run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/replicas.md").read_text()
BLOCKS: Final = dict(re.findall(r"^```(sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SUBMITS: Final = BLOCKS["sh"].splitlines()


def job_of(live: LiveCluster, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    return found


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """A cluster of one peer."""
    with LiveCluster(tmp_path_factory.mktemp("replicas")) as cluster:
        cluster.start("a", slots=4)
        yield cluster


@pytest.mark.parametrize("command", SUBMITS)
def test_a_submit_of_the_page_runs(one: LiveCluster, command: str) -> None:
    done = one.run(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr


def test_a_job_with_too_few_peers_runs_and_says_so(one: LiveCluster, tmp_path: Path) -> None:
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    one.ok("submit-job", "--replicas", "2", "--name", "alone", "--", "sh", "-c", script)
    wait_until(lambda: job_of(one, "alone")["owned"] == 1, "it is owned")
    shown = " ".join(one.ok("job", "show", "alone").split())
    assert "replicas 2 of each task; only one of them can run now" in shown
    assert job_of(one, "alone")["replicas"] == 2
    (tmp_path / "go").touch()
    assert one.run("job", "wait", "alone").returncode == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--replicas", "2", "--start", "once"), "leave replicas and speculation out"),
        (("--speculate", "--lock", "db"), "take the lock in the task"),
        (("--replicas", "9"), "less than or equal to 5"),
        (("--on-stall", "speculated"), "speculate"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_word(
    one: LiveCluster, options: tuple[str, ...], says: str
) -> None:
    done = one.run("submit-job", *options, "--", "true")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
