"""Outputs of all attempts on real peers, and that the commands of docs/logs.md run."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any, Final

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import NotFound
from tests.cluster import LiveCluster, wait_until

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


@pytest.mark.smoke
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


def test_history_of_one_task_is_found_behind_more_events_than_are_shown(live: LiveCluster) -> None:
    live.ok("submit-job", "--name", "many", "--array", "0-29", "--wait", "--", "true")
    for index in ("0", "29"):
        steps = steps_of(live, "many", index, "--limit", "9")
        assert [step["event"] for step in steps][-2:] == ["ended", "job-ended"]
    told = json.loads(live.ok("job", "history", "many", "--limit", "2", "-o", "json"))
    assert (len(told["events"]), told["more"]) == (2, True)
    table = live.run("job", "history", "many/29", "--limit", "2")
    assert len(table.stdout.splitlines()) == 3
    assert "only the first 2 events" in table.stderr


def test_history_of_a_task_that_is_not_there_is_refused(live: LiveCluster) -> None:
    live.ok("submit-job", "--name", "lone", "--wait", "--", "true")
    done = live.run("job", "history", "lone", "5")
    assert done.returncode == 2
    assert "has no task 5" in done.stderr
    one, of_task = live.ok("job", "history", "lone"), live.ok("job", "history", "lone/0")
    assert one == of_task


# --- live, and more than travels ------------------------------------------------------------------


def test_a_follower_sees_each_attempt_to_its_end_and_the_next_one(
    live: LiveCluster, tmp_path: Path
) -> None:
    script = (
        f"echo begin $P2P_ATTEMPT; until [ -e {tmp_path}/$P2P_ATTEMPT ]; do sleep 0.02; done;"
        "echo end $P2P_ATTEMPT; test $P2P_ATTEMPT = 2"
    )
    live.ok("submit-job", "--retries", "1", "--name", "seen", "--", "sh", "-c", script)
    with live.popen("job", "logs", "seen", "-f") as follower:
        assert follower.stdout is not None
        lines = [follower.stdout.readline()]
        (tmp_path / "1").touch()
        lines += [follower.stdout.readline(), follower.stdout.readline()]
        (tmp_path / "2").touch()
        lines.append(follower.stdout.readline())
    assert lines == ["begin 1\n", "end 1\n", "begin 2\n", "end 2\n"]
    assert follower.returncode == 0


def test_what_a_function_prints_is_followed_while_it_runs(
    live: LiveCluster, tmp_path: Path
) -> None:
    go = str(tmp_path / "go")

    def talk(_: None) -> None:
        print("hello")
        while not os.path.exists(go):  # noqa: PTH110
            time.sleep(0.02)
        print("bye")

    async def submit(client: Client) -> str:
        return (await client.map(talk, [None], name="talks")).id

    job = live.ask(submit)
    with live.popen("job", "logs", job, "-f") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "hello\n"
        Path(go).touch()
        assert follower.stdout.readline() == "bye\n"
    assert follower.returncode == 0


def test_a_long_output_is_whole_while_its_peer_is_there(live: LiveCluster) -> None:
    script = "seq 100000 | head -c 500000; exit 3"
    live.run("submit-job", "--name", "long", "--wait", "-o", "quiet", "--", "sh", "-c", script)
    whole = "".join(f"{n}\n" for n in range(1, 100_001))[:500_000]
    for peer in live.peers.values():
        done = live.run("job", "logs", "long", "--peer", peer.address)
        assert done.stdout == whole
    (one,) = attempts_of(live, "long")
    assert (one["stdout_total"], one["stdout_kept"], one["note"]) == (500_000, 500_000, None)
    assert live.ok("job", "logs", "long", "-n", "1") == whole.rsplit("\n")[-1]


def test_what_is_beyond_the_bound_is_named(live: LiveCluster) -> None:
    script = "echo first; yes x | head -c 3000000; echo last"
    live.ok("submit-job", "--name", "vast", "--wait", "-o", "quiet", "--", "sh", "-c", script)
    done = live.run("job", "logs", "vast")
    assert done.stdout.startswith("first\nx\nx\n")
    assert done.stdout.endswith("x\nx\nlast\n")
    assert "bytes dropped ...]" in done.stdout
    assert "keeps the first and the last bytes" in done.stderr
    (one,) = attempts_of(live, "vast")
    assert one["stdout_total"] == 3_000_011
    assert one["stdout_kept"] == 1_048_576


def test_what_a_cancelled_task_printed_is_on_its_peer(live: LiveCluster) -> None:
    live.ok("submit-job", "--name", "ended", "--", "sh", "-c", "echo was here; sleep 600")
    wait_until(lambda: live.run("job", "logs", "ended").stdout != "", "its output")
    live.ok("job", "cancel", "ended")

    def is_over() -> bool:
        (one,) = attempts_of(live, "ended")
        return (one["cause"], one["stdout"]) == ("cancelled", "was here\n")

    wait_until(is_over, "the attempt to be over")
