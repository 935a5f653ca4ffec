"""Outputs of all attempts on real peers, and that the commands of docs/logs.md run."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import NotFound
from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "logs.md"
COMMANDS: Final = "".join(
    re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
).splitlines()
THRICE: Final = "echo out $P2P_ATTEMPT; echo err $P2P_ATTEMPT >&2; test $P2P_ATTEMPT = 3"


def attempts_of(live: LiveCluster, job: str, *words: str) -> list[dict[str, Any]]:
    told = live.ok("job", "logs", job, "--attempt", "all", "-o", "json", *words)
    found: list[dict[str, Any]] = json.loads(told)["attempts"]
    return found


def test_the_commands_of_the_page_run(live: LiveCluster) -> None:
    for command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "p2psched"
        done = live.run(*words)
        assert done.returncode == 0, (command, done.stderr)


def test_each_attempt_of_a_task_is_readable_from_each_peer(live: LiveCluster) -> None:
    words = ("--retries", "2", "--name", "thrice", "--wait")
    done = live.run("submit-job", *words, "--", "sh", "-c", THRICE)
    assert done.returncode == 0, done.stderr
    for peer in live.peers.values():
        found = attempts_of(live, "thrice", "--peer", peer.address)
        assert [(one["attempt"], one["cause"], one["stdout"], one["stderr"]) for one in found] == [
            (1, "exit", "out 1\n", "err 1\n"),
            (2, "exit", "out 2\n", "err 2\n"),
            (3, "ok", "out 3\n", "err 3\n"),
        ]
        assert all(one["granted"] and one["ended"] and one["peer"] for one in found)
    assert live.ok("job", "logs", "thrice", "--attempt", "2") == "out 2\n"
    assert live.ok("job", "logs", "thrice", "0", "--stderr", "--attempt", "1") == "err 1\n"
    last = live.run("job", "logs", "thrice")
    assert last.stdout == "out 3\n"
    assert "[attempt 3; --attempt all shows all of them]" in last.stderr


def test_attempts_of_a_wide_job_and_of_what_was_run_again(live: LiveCluster) -> None:
    script = "echo $P2P_INDEX $P2P_ATTEMPT; test $P2P_INDEX != 2"
    words = ("--retries", "1", "--array", "0-4", "--name", "wide", "--wait")
    assert live.run("submit-job", *words, "--", "sh", "-c", script).returncode == 1
    live.ok("job", "retry", "wide")
    assert live.run("job", "wait", "wide").returncode == 1
    found = attempts_of(live, "wide/2")
    assert [one["stdout"] for one in found] == ["2 1\n", "2 2\n", "2 1\n", "2 2\n"]
    assert [one["attempt"] for one in found] == [1, 2, 3, 4]
    assert [one["stdout"] for one in attempts_of(live, "wide/3")] == ["3 1\n"]


def test_the_api_tells_attempts_too(live: LiveCluster) -> None:
    def raise_twice(_: None) -> None:
        attempt = os.environ["P2P_ATTEMPT"]
        print("call", attempt)
        if attempt != "3":
            raise ValueError(attempt)

    async def work(client: Client) -> None:
        job = await client.map(raise_twice, [None], retries=2)
        await job.wait()
        task = job.task()
        found = await task.attempts()
        assert [str(one.cause) for one in found] == ["exception", "exception", "ok"]
        assert (await task.logs(attempt=1)).stdout == "call 1\n"
        log = await task.logs()
        assert (log.attempt.number, log.stdout, log.note) == (3, "call 3\n", "")
        with pytest.raises(NotFound, match="it has 1 to 3"):
            await task.logs(attempt=4)

    live.ask(work)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("last", "--attempt", "9"), "no attempt 9"),
        (("last", "--attempt", "none"), "a number from 1 on"),
        (("last/0", "0"), "name the task once"),
        (("last", "--attempt", "1", "-f"), "leave --attempt"),
        (("last", "7", "--attempt", "1"), "no task 7"),
        (("last", "--stdout", "--stderr"), "exclude each other"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    live: LiveCluster, words: tuple[str, ...], text: str
) -> None:
    live.ok("submit-job", "--name", "one", "--wait", "--", "true")
    done = live.run("job", "logs", *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


# --- history --------------------------------------------------------------------------------------


def steps_of(live: LiveCluster, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(live.ok("job", "history", *words, "-o", "json"))[
        "events"
    ]
    return found


def test_history_lists_each_transition_with_time_peer_grant_and_cause(live: LiveCluster) -> None:
    script = 'test $P2P_ATTEMPT = 3 || { test "$P2P_INDEX" = 1 && exit 7; }; sleep 0'
    words = ("--retry", "exit=2,delay=fixed:200ms,demote,warn", "--array", "0-2", "--wait")
    live.ok("submit-job", "--name", "told", *words, "--", "sh", "-c", script)
    steps = steps_of(live, "told", "1")
    kinds = [step["event"] for step in steps if step["event"] not in {"moved", "given-back"}]
    retry = ["to-be-retried", "delayed"]
    assert [kind for kind in kinds if kind != "alert"] == [
        *("submitted", "granted", *retry, "granted", *retry, "granted", "ended", "job-ended")
    ]
    assert kinds.count("alert") == 1
    retried = [step for step in steps if step["event"] == "to-be-retried"]
    assert [step["attempt"] for step in retried] == [1, 2]
    for step in retried:
        assert step["cause"] == "exit"
        assert step["demoted"]
        assert step["peer"] in live.peers
        assert step["grant"] > 0
        assert step["time"].startswith("2")
    delayed = [step for step in steps if step["event"] == "delayed"]
    assert all(step["until_ledger_ms"] > step["ledger_ms"] for step in delayed)
    stamps = [step["ledger_ms"] for step in steps]
    assert stamps == sorted(stamps)
    assert {step["event"] for step in steps_of(live, "told", "--failed")} == {
        *("to-be-retried", "alert")
    }
    table = live.ok("job", "history", "told/1")
    assert "to be retried, demoted" in table
    assert "for 200 ms, until" in table


def test_history_of_a_task_that_is_not_there_is_refused(live: LiveCluster) -> None:
    live.ok("submit-job", "--name", "lone", "--wait", "--", "true")
    done = live.run("job", "history", "lone", "5")
    assert done.returncode == 2
    assert "has no task 5" in done.stderr
    one, of_task = live.ok("job", "history", "lone"), live.ok("job", "history", "lone/0")
    assert one == of_task
