"""Retries by cause on three real peers, and that the commands of docs/retries.md run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from p2psched.cli.complete import complete_rules
from tests.cluster import LiveCluster, wait_until
from tests.peer.receiver import receiving

pytestmark = pytest.mark.process

DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "retries.md"
BLOCK: Final = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS: Final = BLOCK[0].splitlines()


def job_of(live: LiveCluster, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(live: LiveCluster, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "p2psched"
    done = live.run(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.smoke
def test_a_task_that_fails_twice_then_passes_ends_well(live: LiveCluster, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    script = f"echo $P2P_ATTEMPT >> {tries}; test $P2P_ATTEMPT = 3"
    rule = "exit=2,delay=fixed:300ms"
    done = live.run(
        "submit-job", "--retry", rule, "--name", "twice", "--wait", "--", "sh", "-c", script
    )
    assert done.returncode == 0, done.stderr
    assert tries.read_text().split() == ["1", "2", "3"]
    job = job_of(live, "twice")
    assert (job["state"], job["attempts_failed"]) == ("succeeded", 2)
    assert job["ended_badly_by"] == {"exit": 2}
    told = live.ok("events", "export", "--job", "twice", "--kind", "tasks.delayed")
    assert len(told.splitlines()) == 2


def test_who_asks_is_told_of_the_next_attempt(live: LiveCluster) -> None:
    words = ("--retry", "exit=1,delay=fixed:10m", "--name", "later", "--", "false")
    live.ok("submit-job", *words)
    wait_until(lambda: job_of(live, "later")["delayed"] == 1, "its first attempt has failed")
    assert job_of(live, "later")["next_attempt"] is not None
    assert "1 task wait" in live.ok("job", "show", "later")
    live.ok("job", "cancel", "later")


def test_explain_tells_how_far_a_task_has_sunk(live: LiveCluster) -> None:
    words = ("--retry", "exit=1,demote,delay=fixed:10m", "--name", "sunk", "--", "false")
    live.ok("submit-job", *words)
    wait_until(lambda: job_of(live, "sunk")["delayed"] == 1, "its first attempt has failed")
    priority = json.loads(live.ok("explain", "sunk/0", "-o", "json"))["priority"]
    assert (priority["steps_down"], priority["steps_max"]) == (1, 3)
    assert "priority: 1 of at most 3 steps down" in live.ok("explain", "sunk/0")
    live.ok("job", "cancel", "sunk")


def test_a_fatal_end_stops_the_job_and_raises_one_alert(live: LiveCluster) -> None:
    script = "if [ $P2P_INDEX = 0 ]; then exit 9; else sleep 600; fi"
    words = ("--retry", "exit=5,fatal", "--name", "fatal", "--array", "0-20", "--wait")
    done = live.run("submit-job", *words, "--", "sh", "-c", script)
    assert done.returncode == 1
    job = job_of(live, "fatal")
    assert (job["state"], job["failed"], job["cancelled"]) == ("failed", 1, 20)
    assert "fatal" in str(job["given_up"])
    told = live.ok("events", "export", "--job", "fatal", "--kind", "job.alert")
    assert len(told.splitlines()) == 1


def test_a_webhook_brings_an_alert_once(live: LiveCluster) -> None:
    with receiving() as receiver:
        live.ok("webhook", "add", receiver.url, "--name", "bell", "--kind", "job.alert")
        words = ("--retry", "exit=1,error", "--name", "bad", "--array", "0-4", "--wait")
        assert live.run("submit-job", *words, "--", "false").returncode == 1
        receiver.wait(lambda: bool(receiver.events))
        exported = live.ok("events", "export", "--job", "bad", "--kind", "job.alert").splitlines()
        alerts = {event["cursor"]: event for event in receiver.events}
        assert list(alerts.values()) == [json.loads(line) for line in exported]
        (alert,) = alerts.values()
        assert (alert["cause"], alert["severity"]) == ("exit", "error")
        live.ok("webhook", "remove", "bell")


def test_a_job_over_its_total_time_has_failed(live: LiveCluster) -> None:
    words = ("--total-timeout", "1s", "--name", "slow", "--wait", "--", "sleep", "600")
    assert live.run("submit-job", *words).returncode == 1
    assert (job_of(live, "slow")["state"], job_of(live, "slow")["cancelled"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("exit", "no rule"),
        ("peer-lost=3", "no rule for"),
        ("exit=x", "begins with a number"),
        ("exit=1,sometimes", "no option"),
        ("exit=1,delay=exp:1s", "no delay"),
        ("exit=1,delay=exp:9s:1s", "cap"),
        ("exit=101", "0 to 100"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_what_to_write(
    live: LiveCluster, rule: str, says: str
) -> None:
    done = live.run("submit-job", "--retry", rule, "--", "true")
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_tab_offers_causes_and_then_options() -> None:
    assert "timeout=2" in complete_rules("t")
    assert "exit=3,fatal" in complete_rules("exit=3,f")
    assert "exit=3,delay=fixed:5s" in complete_rules("exit=3")
