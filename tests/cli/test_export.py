"""`p2psched job export` on real peers, before and after all of them were started again."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

TASKS: Final = 300


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Whoever kills them starts them again."""
    with LiveCluster(tmp_path_factory.mktemp("three")) as cluster:
        for name in "abc":
            cluster.start(name)
        yield cluster


def describe(number: int) -> dict[str, object]:
    if number == 7:
        raise ValueError("seven")
    print("task", number)
    return {"number": number, "half": number / 2}


def a_job(cluster: LiveCluster) -> str:
    async def work(client: Client) -> str:
        job = await client.map(describe, range(TASKS), name="describe")
        await job.wait()
        return job.id

    return cluster.ask(work)


def rows(text: str) -> dict[int, dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert len(found) == len({row["index"] for row in found})
    return {row["index"]: row for row in found}


def test_an_export_is_the_same_through_every_peer_and_after_a_restart_of_all(
    three: LiveCluster, tmp_path: Path
) -> None:
    wait_until(
        lambda: all(view.role != "learner" for view in three.ask(Client.peers)), "three voters"
    )
    job = a_job(three)
    before = three.ok("job", "export", job)
    found = rows(before)
    assert sorted(found) == list(range(TASKS))
    good = [row for row in found.values() if row["state"] == "succeeded"]
    assert len(good) == TASKS - 1
    for row in good:
        number = row["index"]
        assert isinstance(number, int)
        assert row["value"] == {"number": number, "half": number / 2}
        assert row["stdout"] == f"task {number}\n"
    assert (found[7]["error"], found[7]["message"]) == ("ValueError", "seven")
    peers = {peer.id for peer in three.peers.values()}
    assert {row["peer"] for row in found.values()} <= peers
    assert all(row["grant"] and row["committed_ms"] for row in found.values())

    for name in "abc":
        three.kill(name)
    restarted = [three.restart_nowait(name) for name in "abc"]
    for peer in restarted:
        three.wait_ready(peer)
    for peer in restarted:
        assert three.ok("job", "export", job, "--peer", peer.address) == before


def test_every_format_is_written_to_a_file_and_says_where(
    three: LiveCluster, tmp_path: Path
) -> None:
    job = a_job(three)
    said = three.ok("job", "export", job, str(tmp_path / "out.sqlite"))
    assert said == f"job {job[:8]} (describe): {TASKS} rows in {tmp_path}/out.sqlite\n"
    with sqlite3.connect(tmp_path / "out.sqlite") as db:
        query = "SELECT sum(value ->> 'number'), count(*) FROM results WHERE state = 'succeeded'"
        assert db.execute(query).fetchone() == (sum(range(TASKS)) - 7, TASKS - 1)
    db.close()
    told = json.loads(three.ok("job", "export", job, str(tmp_path / "out"), "-o", "json"))
    assert (told["rows"], told["format"], told["state"]) == (TASKS, "dir", "failed")
    assert json.loads((tmp_path / "out" / "8" / "value.json").read_text())["number"] == 8
    assert (tmp_path / "out" / "8" / "stdout").read_text() == "task 8\n"
    table = three.ok("job", "export", job, "--to", "csv")
    assert len(list(csv.DictReader(io.StringIO(table, newline="")))) == TASKS


def test_what_is_wrong_is_said_and_nothing_is_overwritten(
    three: LiveCluster, tmp_path: Path
) -> None:
    three.ok("submit-job", "--wait", "--", "echo", "hi")
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    for words, code, message in (
        ((str(kept),), 2, "is there already"),
        (("--to", "sqlite"), 2, "can't go to stdout"),
        ((str(tmp_path / "x.xlsx"),), 2, "does not say its format"),
        ((str(tmp_path / "gone" / "x.csv"),), 2, "there is no folder"),
        ((str(tmp_path), "--to", "dir", "--force"), 2, "no export made"),
    ):
        done = three.run("job", "export", "last", *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert message in done.stderr
    assert kept.read_text() == "mine"
    three.ok("job", "export", "last", str(kept), "--force")
    assert kept.read_text().startswith("index,state,cause")


def test_a_job_that_goes_on_is_exported_as_far_as_it_is(three: LiveCluster, tmp_path: Path) -> None:
    program = f"test $P2P_INDEX = 0 || while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    three.ok("submit-job", "--array", "0-1", "--", "sh", "-c", program)
    wait_until(lambda: bool(three.ok("job", "export", "last")), "the first result")
    done = three.run("job", "export", "last")
    assert list(rows(done.stdout)) == [0]
    assert "goes on: 1 of 2 tasks ended so far" in done.stderr
    (tmp_path / "go").touch()
    assert three.run("job", "wait", "last").returncode == 0
    assert sorted(rows(three.ok("job", "export", "last"))) == [0, 1]


def test_a_task_that_was_run_again_is_exported_and_listed_once(
    three: LiveCluster, tmp_path: Path
) -> None:
    program = f"test $P2P_INDEX != 2 -a $P2P_INDEX != 5 || test -e {tmp_path}/mended"
    assert three.run("submit-job", "--array", "0-7", "--wait", "--", "sh", "-c", program).returncode
    states = {n: row["state"] for n, row in rows(three.ok("job", "export", "last")).items()}
    assert {n for n, state in states.items() if state == "failed"} == {2, 5}
    (tmp_path / "mended").touch()
    three.ok("job", "retry", "last", "--wait")
    found = rows(three.ok("job", "export", "last"))
    assert sorted(found) == list(range(8))
    assert {row["state"] for row in found.values()} == {"succeeded"}
    assert found[2]["grant"] != found[1]["grant"]
    listed = json.loads(three.ok("job", "results", "last", "-o", "json"))["results"]
    assert sorted(task["index"] for task in listed) == list(range(8))
