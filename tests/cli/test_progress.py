"""How far tasks are on three real peers, and that the commands of docs/progress.md run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "progress.md").read_text()
BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def progress_of(live: LiveCluster, job: str, *more: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(live.ok("job", "show", job, "-o", "json", *more))[
        "progress"
    ]
    return found


def test_the_commands_of_the_page_run(live: LiveCluster) -> None:
    for command in BLOCKS[0].splitlines():
        program, *words = shlex.split(command)
        assert program == "p2psched"
        done = live.run(*words)
        assert done.returncode == 0, (command, done.stderr)


def test_the_script_of_the_page_runs_as_a_task(live: LiveCluster, tmp_path: Path) -> None:
    script = tmp_path / "rows.py"
    script.write_text(SCRIPT)
    words = ("--env", f"PYTHONPATH={ROOT}", "--send", str(script), "--wait", "--")
    assert live.ok("submit-job", *words, sys.executable, "rows.py") == "done\n"


def test_any_peer_tells_how_far_the_tasks_of_all_are(live: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo 3/10 third > $P2P_PROGRESS; until [ -e {gate} ]; do sleep 0.05; done"
    live.ok("submit-job", "--name", "far", "--array", "0-2", "--", "sh", "-c", script)
    wait_until(
        lambda: [row["done"] for row in progress_of(live, "far")] == [3.0] * 3, "all have said it"
    )
    rows = progress_of(live, "far")
    assert [(row["index"], row["total"], row["note"]) for row in rows] == [
        (index, 10.0, "third") for index in range(3)
    ]
    assert "30 % (3/10)" in live.ok("job", "show", "far")
    gate.touch()
    live.ok("job", "wait", "far")
    assert progress_of(live, "far") == []


def test_a_batch_of_inputs_tells_how_many_have_their_line(
    live: LiveCluster, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = (
        "read a; echo $a; read b; echo $b; "
        f"until [ -e {gate} ]; do sleep 0.05; done; while read c; do echo $c; done"
    )
    inputs = tmp_path / "inputs"
    inputs.write_text("".join(f"{number}\n" for number in range(10)))
    words = ("--name", "lines", "--inputs", str(inputs), "--batch", "5", "--", "sh", "-c", script)
    live.ok("submit-job", *words)
    wait_until(
        lambda: (
            [(row["done"], row["total"]) for row in progress_of(live, "lines")] == [(2.0, 5.0)] * 2
        ),
        "two lines have come out of each",
    )
    gate.touch()
    live.ok("job", "wait", "lines")
    assert live.ok("job", "results", "lines").split() == [str(number) for number in range(10)]


def test_a_silent_task_is_ended_and_its_next_attempt_succeeds(live: LiveCluster) -> None:
    script = "test $P2P_ATTEMPT = 2 || sleep 600"
    words = ("--heartbeat", "1s", "--on-stall", "elsewhere", "--name", "mute", "--wait")
    live.ok("submit-job", *words, "--", "sh", "-c", script)
    job = json.loads(live.ok("job", "show", "mute", "-o", "json"))["job"]
    assert job["ended_badly_by"] == {"stalled": 1}


def test_a_task_too_slow_for_its_limit_goes_elsewhere_before_it(
    live: LiveCluster, tmp_path: Path
) -> None:
    where = tmp_path / "where"
    script = (
        f"echo $P2P_PEER >> {where}; test $P2P_ATTEMPT = 2 && exit 0; "
        "for i in $(seq 600); do echo $i 600 > $P2P_PROGRESS; sleep 0.3; done"
    )
    words = ("--timeout", "60s", "--on-stall", "elsewhere", "--name", "tardy", "--wait")
    live.ok("submit-job", *words, "--", "sh", "-c", script)
    job = json.loads(live.ok("job", "show", "tardy", "-o", "json"))["job"]
    assert job["ended_badly_by"] == {"stalled": 1}
    first, second = where.read_text().split()
    assert first != second


def test_a_warning_is_told_once_and_nothing_is_ended(live: LiveCluster) -> None:
    words = ("--heartbeat", "1s", "--name", "warned", "--array", "0-1", "--wait")
    live.ok("submit-job", *words, "--", "sleep", "3")
    told = live.ok("events", "export", "--job", "warned", "--kind", "job.alert").splitlines()
    (alert,) = map(json.loads, told)
    assert (alert["cause"], alert["severity"]) == ("stalled", "warn")
    assert "silent for" in alert["why"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--heartbeat", "10ms"), "at least 1000 ms"),
        (("--on-stall", "shout"), "warn or elsewhere"),
        (("--progress", "epoch"), "has none"),
        (("--progress", "("), "no regular expression"),
        (("--grace", "2h"), "0 to one hour"),
    ],
)
def test_rules_that_are_none_are_refused_with_what_to_write(
    live: LiveCluster, option: tuple[str, str], says: str
) -> None:
    done = live.run("submit-job", *option, "--", "true")
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
