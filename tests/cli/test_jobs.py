"""Jobs from submit to results, as people and scripts type them, on three real peers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2psched.client.client import Client
from p2psched.model.messages import JobView
from tests.cli.terminal import terminal
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process


def submitted(live: LiveCluster, *words: str) -> str:
    """The short id of a new job."""
    return live.ok("submit-job", "-o", "quiet", *words).strip()


def state(live: LiveCluster, job: str) -> str:
    async def work(client: Client) -> JobView:
        return await (await client.job(job)).show()

    return live.ask(work).state


def runs(live: LiveCluster, job: str) -> bool:
    """True once a task of the job has printed something."""
    return bool(live.run("job", "logs", job).stdout)


@pytest.mark.smoke
def test_waiting_shows_the_output_and_ends_with_success(live: LiveCluster) -> None:
    done = live.run("submit-job", "--wait", "--", "python3", "-c", "print(6*7)")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert "1 task succeeded" in done.stderr


@pytest.mark.smoke
def test_a_failed_task_is_named_with_its_cause_and_exit_code_1(live: LiveCluster) -> None:
    done = live.run("submit-job", "--wait", "--", "sh", "-c", "echo no >&2; exit 7")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1] == "no"
    assert "exit code 7: see `p2psched job logs" in done.stderr


@pytest.mark.smoke
def test_an_array_shows_whose_output_it_is_and_which_tasks_failed(live: LiveCluster) -> None:
    program = "echo $P2P_INDEX; test $P2P_INDEX != 3 -a $P2P_INDEX != 8"
    done = live.run("submit-job", "--array", "1,3,7-9", "--wait", "--", "sh", "-c", program)
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == [f"[{i}] {i}" for i in (1, 3, 7, 8, 9)]
    assert "2 of 5 tasks failed" in done.stderr
    assert "/3: exit code 1" in done.stderr
    assert "/8: exit code 1" in done.stderr
    shown = live.ok("job", "show", "last")
    assert "1,3,7-9 (5)" in shown
    assert "/8: exit code 1" in shown


def test_long_output_is_shown_once_and_its_gap_is_named(live: LiveCluster) -> None:
    program = "for i in range(20000): print(i)"
    done = live.run("submit-job", "--wait", "--", "python3", "-c", program)
    assert done.returncode == 0
    numbers = [int(line) for line in done.stdout.splitlines() if line.isdecimal()]
    assert numbers[0] == 0
    assert numbers[-1] == 19999
    if "bytes dropped ...]" not in done.stdout:  # the live view may have caught all of it
        assert numbers == list(range(20000))


@pytest.mark.smoke
def test_output_comes_while_the_task_runs(live: LiveCluster, tmp_path: Path) -> None:
    program = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo last"
    job = submitted(live, "--", "sh", "-c", program)
    with terminal(live, ["job", "logs", job, "-f"]) as screen:
        screen.wait_for("first")
        assert "last" not in screen.screen
        (tmp_path / "go").touch()
        assert screen.wait_end() == 0
        assert screen.screen.count("first") == screen.screen.count("last") == 1


def test_a_second_attempt_is_said_and_shown_from_its_beginning(live: LiveCluster) -> None:
    program = "echo attempt $P2P_ATTEMPT; sleep 0.5; test $P2P_ATTEMPT = 2"
    done = live.run("submit-job", "--retries", "1", "--wait", "--", "sh", "-c", program)
    assert done.returncode == 0
    assert done.stdout.endswith("attempt 2\n")
    assert "starts again: exit" in done.stderr
    assert "to be retried" in live.ok("job", "history", "last")


@pytest.mark.smoke
def test_the_command_passes_through_no_shell_and_gets_files_and_variables(
    live: LiveCluster, tmp_path: Path
) -> None:
    script = tmp_path / "show.sh"
    script.write_text('#!/bin/sh\necho "$1|$NAME|$(pwd)"\n')
    script.chmod(0o755)
    options = ["--send", str(script), "--env", "NAME=a b", "--name", "shown"]
    done = live.run("submit-job", *options, "--wait", "--", "./show.sh", "$HOME; ls")
    assert done.returncode == 0
    assert done.stdout.startswith("$HOME; ls|a b|/")
    assert live.ok("job", "show", "shown", "-o", "quiet")


def test_a_key_stands_for_one_job(live: LiveCluster) -> None:
    first = live.run("submit-job", "--key", "once", "-o", "quiet", "--", "true")
    again = live.run("submit-job", "--key", "once", "--", "true")
    assert again.stdout.startswith(f"job {first.stdout.strip()} ")
    assert "was submitted before" in again.stderr
    assert "known" not in first.stderr


def test_a_timeout_of_the_task_and_one_of_the_waiter_differ(live: LiveCluster) -> None:
    slow = ["--", "sleep", "60"]
    ended = live.run("submit-job", "--timeout", "200ms", "--wait", *slow)
    assert ended.returncode == 1
    assert "timeout: ended after its limit of 200 ms" in ended.stderr
    left = live.run("submit-job", "--name", "slow", "--wait", "--wait-timeout", "200ms", *slow)
    assert left.returncode == 4
    assert "p2psched job wait" in left.stderr
    assert live.run("job", "wait", "slow", "--timeout", "0.2").returncode == 4
    assert "cancelled" in live.ok("job", "cancel", "slow")
    assert "had ended already: cancelled" in live.ok("job", "cancel", "slow")
    assert "  cancelled   0/1 " in live.ok("jobs", "--limit", "1")
    assert live.run("job", "wait", "slow").returncode == 1


def test_a_job_that_nobody_can_run_says_why_it_waits(live: LiveCluster) -> None:
    job = submitted(live, "--cpus", "9", "--", "true")
    assert "a task needs 9 slots" in live.ok("job", "show", job)
    live.ok("job", "cancel", job)


def test_lists_are_json_with_stable_names_or_ids_alone(live: LiveCluster) -> None:
    job = submitted(live, "--name", "listed", "--array", "0-2", "--", "sh", "-c", "echo $P2P_INDEX")
    assert live.run("job", "wait", job).returncode == 0
    jobs = json.loads(live.ok("jobs", "-o", "json"))
    assert jobs["version"] == 1
    newest = jobs["jobs"][0]
    assert newest["id"].startswith(job)
    assert (newest["name"], newest["state"], newest["succeeded"]) == ("listed", "succeeded", 3)
    results = json.loads(live.ok("job", "results", job, "-o", "json"))["results"]
    assert [(r["index"], r["cause"], r["stdout"]) for r in results] == [
        (i, "ok", f"{i}\n") for i in range(3)
    ]
    assert live.ok("job", "results", job, "-o", "quiet").split() == [f"{job}/{i}" for i in range(3)]
    assert live.ok("job", "results", job, "--raw", "1") == "1\n"
    events = json.loads(live.ok("job", "history", job, "-o", "json"))["events"]
    assert [events[0]["event"], events[-1]["event"]] == ["submitted", "job-ended"]
    logs = json.loads(live.ok("job", "logs", job, "-o", "json"))["logs"]
    assert [log["stdout"] for log in logs] == ["0\n", "1\n", "2\n"]
    assert job in live.ok("jobs", "-o", "quiet").split()


def test_values_are_shown_only_if_that_runs_no_code(live: LiveCluster) -> None:
    async def work(client: Client) -> str:
        job = await client.map(_square_or_set, [3, -1])
        await job.wait()
        return job.id

    job = live.ask(work)
    table = live.ok("job", "results", job)
    assert "    0  ok     9\n" in table
    assert "--unpickle opens it" in table
    assert "{1}" in live.ok("job", "results", job, "--unpickle")


def _square_or_set(x: int) -> object:
    return x * x if x >= 0 else {1}


def test_a_job_or_task_that_is_not_there_is_exit_code_2(live: LiveCluster) -> None:
    submitted(live, "--", "true")
    for words in (("show", "nope"), ("logs", "last/5"), ("results", "last", "--raw", "5")):
        done = live.run("job", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


# --- Ctrl-C ---------------------------------------------------------------------------------------


def test_ctrl_c_detaches_and_the_job_goes_on(live: LiveCluster, tmp_path: Path) -> None:
    program = f"echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    with terminal(live, ["submit-job", "--name", "left", "--wait", "--", "sh", "-c", program]) as t:
        t.wait_for("begun")
        t.press_ctrl_c()
        assert t.wait_end() == 130
        assert "p2psched job wait" in t.screen
        assert "Traceback" not in t.screen
    assert state(live, "left") == "running"
    (tmp_path / "go").touch()
    assert live.run("job", "wait", "left").returncode == 0


def test_a_second_ctrl_c_cancels_the_job(live: LiveCluster) -> None:
    job = submitted(live, "--", "sh", "-c", "echo begun; sleep 60")
    wait_until(lambda: runs(live, job), "the task to begin")
    with terminal(live, ["job", "logs", job, "-f"]) as t:
        t.wait_for("begun")
        t.press_ctrl_c()
        t.wait_for("press Ctrl-C again")
        t.press_ctrl_c()
        assert t.wait_end() == 130
        assert f"cancelled job {job}" in t.screen
    assert state(live, job) == "cancelled"


# --- peers ----------------------------------------------------------------------------------------


def test_peers_tell_what_scripts_need(live: LiveCluster) -> None:
    found = json.loads(live.ok("peers", "-o", "json"))
    assert found["version"] == 1
    peers = {peer["name"]: peer for peer in found["peers"]}
    assert set(peers) == {"a", "b", "c"}
    assert [peer["role"] for peer in peers.values()].count("leader") == 1
    for name, peer in peers.items():
        assert peer["state"] == "alive"
        assert (peer["id"], peer["address"], peer["pid"]) == (
            live.peers[name].id,
            live.peers[name].address,
            live.peers[name].pid,
        )
    status = json.loads(live.ok("status", "-o", "json", "--peer", peers["b"]["address"]))["status"]
    assert status["info"]["name"] == "b"
    assert status["quorum"] is True
    assert live.ok("peers").splitlines()[0].startswith("NAME  ID")
    assert live.ok("status").startswith("peer ")


def test_stop_does_not_guess(live: LiveCluster) -> None:
    done = live.run("stop")
    assert done.returncode == 2
    assert "p2psched stop b" in done.stderr


def test_tab_offers_ids_of_jobs_and_names_of_peers(live: LiveCluster) -> None:
    job = submitted(live, "--", "true")
    env = live.env | {"_P2PSCHED_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    saved, live.env = live.env, env
    try:
        env["COMP_WORDS"] = f"p2psched job show {job[:3]}"
        assert job in live.run().stdout.split()
        env |= {"COMP_WORDS": "p2psched stop ", "COMP_CWORD": "2"}
        assert {"a", "b", "c"} <= set(live.run().stdout.split())
    finally:
        live.env = saved
