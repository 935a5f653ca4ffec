"""A peer that loses the majority, as people see it; the commands of docs/disconnection.md run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "disconnection.md"
BLOCK: Final = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS: Final = [line for line in BLOCK[0].splitlines() if " start " not in line]
HAVE_NOTHING: Final = {"reconcile show": 2}  # before anybody was cut off


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Tasks run on c only."""
    with LiveCluster(tmp_path_factory.mktemp("cut")) as cluster:
        for name in "abc":
            cluster.start(name, slots=int(name == "c"), options=["--max-disconnect", "1m"])
        cluster.await_voters(3)
        yield cluster


class Majority:
    def __init__(self, live: LiveCluster) -> None:
        self.live = live

    def _signal(self, number: int) -> None:
        for name in "ab":
            os.kill(self.live.peers[name].pid, number)

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)
        wait_until(lambda: "cut off" in self.ask("status"), "it notices")

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """Of c."""
        return self.live.ok(*words, "--peer", self.live.peers["c"].address)

    def report(self) -> dict[str, object]:
        told = json.loads(self.ask("reconcile", "show", "-o", "json"))["reports"]
        found: dict[str, object] = told[-1] if told else {}
        return found


@pytest.fixture
def majority(live: LiveCluster) -> Iterator[Majority]:
    made = Majority(live)
    yield made
    made.go_on()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(live: LiveCluster, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "p2psched"
    done = live.run(*words)
    assert done.returncode == HAVE_NOTHING.get(" ".join(words), 0), done.stderr


def lines_of(report: dict[str, object]) -> list[dict[str, object]]:
    lines = report["committed"]
    assert isinstance(lines, list)
    return lines


def spool(majority: Majority, name: str, *options: str) -> tuple[int, str]:
    where = ("--peer", majority.live.peers["c"].address)
    words = ("submit-job", "--spool", "--patience", "500ms", *where, "--name", name, *options)
    done = majority.live.run(*words, "--", "true")
    return done.returncode, done.stderr


def test_what_is_left_with_a_cut_off_peer_gets_a_receipt_and_is_a_job_later(
    live: LiveCluster, majority: Majority, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f"echo begun; while [ ! -e {gate} ]; do sleep 0.05; done"
    made = json.loads(
        live.ok("submit-job", "--name", "long", "-o", "json", "--", "sh", "-c", script)
    )
    job = made["job"]["id"]
    wait_until(lambda: "1 running" in majority.ask("status"), "its task runs")
    majority.stop()
    code, told = spool(majority, "night")
    assert code == 8
    assert "not accepted yet" in told
    assert spool(majority, "dropped")[0] == 8
    assert majority.ask("spool", "list", "-o", "quiet").count("\n") == 2
    assert "night" in majority.ask("spool", "show", "night")
    majority.ask("spool", "rm", "dropped")
    assert spool(majority, "next", "--after", job)[0] == 8
    assert spool(majority, "astray", "--after", "a" * 32)[0] == 8
    gate.touch()
    wait_until(lambda: "1 result kept" in majority.ask("status"), "it has ended, alone")
    majority.go_on()
    wait_until(lambda: bool(majority.report()), "it is back and tells")
    report = majority.report()
    assert report["tasks_discarded"] == report["tasks_ended"] == 0
    left = {line["name"]: line["outcome"] for line in json.loads(json.dumps(report["spooled"]))}
    assert (left["night"], left["next"]) == ("accepted", "accepted")
    assert f"no job {'a' * 32} to come after" in left["astray"]
    (line,) = [line for line in lines_of(report) if line["job"] == job]
    assert (line["tasks"], line["grant"]) == ("0", line["current"])
    assert live.run("job", "wait", "long").returncode == 0
    assert live.run("job", "wait", "night").returncode == 0
    assert live.run("job", "wait", "next").returncode == 0
    (before,) = json.loads(live.ok("job", "show", "next", "-o", "json"))["job"]["after"]
    assert (before["job"], before["state"]) == (job, "succeeded")
    assert "reconciled" in majority.ask("status")
    events = live.ok("events", "export", "--kind", "peer.reconciled").splitlines()
    assert json.loads(events[-1])["committed"] == report["tasks_committed"]


@pytest.mark.long
def test_a_peer_that_is_killed_while_cut_off_begins_again_by_itself(
    live: LiveCluster, majority: Majority, tmp_path: Path
) -> None:
    starts, gate = tmp_path / "starts", tmp_path / "gate"
    script = f"echo $P2P_FENCE >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done"
    live.ok("submit-job", "--name", "again", "--", "sh", "-c", script)
    note = live.peers["c"].data / "cutoff" / "specs"
    wait_until(lambda: any(note.iterdir()), "what lasts is noted")
    majority.stop()
    live.kill("c")
    live.restart_nowait("c")
    wait_until(lambda: len(starts.read_text().split()) == 2, "it runs again, with nobody to ask")
    first, second = (fence.split(".") for fence in starts.read_text().split())
    assert first[:2] == second[:2], "under the same grant"
    assert int(second[2]) > int(first[2]), "and a higher fence"
    gate.touch()
    wait_until(lambda: "1 result kept" in majority.ask("status"), "its result is kept")
    live.kill("c")
    live.restart_nowait("c")
    majority.go_on()
    assert live.run("job", "wait", "again").returncode == 0
    wait_until(lambda: majority.report().get("restarts") is not None, "it tells")
    assert majority.report()["tasks_committed"] == 1
    assert len(starts.read_text().split()) == 2
