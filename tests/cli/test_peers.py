"""Peers that come, go, fail to start and come back, by the command line alone."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import Unavailable
from tests.cluster import COMMAND_S, LiveCluster, wait_until

pytestmark = pytest.mark.process


def voters(cluster: LiveCluster) -> int:
    try:
        views = cluster.ask(Client.peers)
    except Unavailable:
        return 0
    return sum(view.role != "learner" and view.state == "alive" for view in views)


@pytest.mark.smoke
def test_a_killed_peer_costs_no_command_and_comes_back_by_itself(empty: LiveCluster) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    job = empty.ok("submit-job", "-o", "quiet", "--array", "0-5", "--", "sleep", "1").strip()
    empty.kill("a")
    dead = empty.peers["a"].address
    assert empty.run("job", "wait", job, "--peer", dead).returncode == 0
    wait_until(
        lambda: any(view.state == "dead" for view in empty.ask(Client.peers)),
        "a to be declared dead",
    )
    assert "dead" in empty.ok("peers")
    empty.restart("a")  # without --join
    assert "dead" not in empty.ok("peers")

    empty.kill("b")
    empty.kill("c")
    lonely = empty.run("submit-job", "--patience", "1s", "--", "true")
    assert lonely.returncode == 3
    assert "no quorum" in lonely.stderr
    # Not before it has waited for its leader as long as it waits for a slow one.
    silent = "a majority of the voters does not answer"
    wait_until(lambda: silent in empty.ok("status"), "the silence to be noticed")


def test_a_peer_without_a_vote_runs_tasks_and_is_passed_over_when_voters_are_chosen(
    empty: LiveCluster,
) -> None:
    empty.start("a", slots=0)
    empty.start("b", slots=1, options=["--no-vote"])
    empty.start("c", slots=0)
    assert empty.run("submit-job", "--wait", "--", "true").returncode == 0
    empty.start("d", slots=0)
    wait_until(lambda: voters(empty) == 3, "three voters")
    peers = json.loads(empty.ok("peers", "-o", "json"))["peers"]
    assert {p["name"] for p in peers if p["role"] == "learner"} == {"b"}
    assert empty.stop("b") == 0
    empty.restart("b")  # the wish is one of the start, not of the folder
    assert voters(empty) == 3


def test_the_founder_of_a_cluster_has_to_vote(empty: LiveCluster) -> None:
    where = ("--name", "a", "--data", str(empty.folder / "a"), "--listen", "127.0.0.1:0")
    refused = empty.run("start", "--no-vote", *where)
    assert refused.returncode == 2
    assert "the first peer of a cluster has to vote" in refused.stderr
    assert not (empty.folder / "a").exists()  # and the next start is not in its way


def test_a_whole_cluster_starts_again_and_says_meanwhile_what_it_waits_for(
    empty: LiveCluster,
) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    for name in "abc":
        assert empty.stop(name) == 0
    first = empty.restart_nowait("a")
    wait_until(lambda: "waits for a majority" in first.log, "a word on what it waits for")
    assert empty.peers["b"].address in first.log
    second = empty.restart_nowait("b")
    empty.wait_ready(first)
    empty.wait_ready(second)
    assert empty.run("submit-job", "--wait", "--", "true").returncode == 0


@pytest.mark.smoke
def test_a_detached_peer_is_ready_logs_to_its_folder_and_can_be_stopped(
    empty: LiveCluster,
) -> None:
    data = empty.folder / "d"
    where = ("--name", "d", "--data", str(data), "--listen", "127.0.0.1:0")
    started = empty.ok("start", "-d", "--slots", "1", *where)
    assert started.startswith("peer d is up at 127.0.0.1:")
    assert str(data / "peer.log") in started
    assert (data / "secret").read_text().strip() not in started
    assert "for others start it with\n       --listen HOST:PORT --insecure" in started
    assert empty.run("submit-job", "--wait", "--", "echo", "hi").stdout == "hi\n"

    taken = empty.run("start", "-d", *where)
    assert taken.returncode == 5
    assert taken.stderr.startswith(f"error: data folder {data} is in use by process ")

    pid = json.loads(empty.ok("status", "-o", "json"))["status"]["info"]["pid"]
    assert empty.ok("stop") == f"stopped peer d at {_address(started)} (pid {pid})\n"
    assert not alive(pid)
    assert (data / "peer.log").exists()


def test_the_folder_of_a_peer_keeps_its_name_and_that_is_how_it_is_stopped(
    empty: LiveCluster,
) -> None:
    where = ("--data", str(empty.folder / "d"), "--listen", "127.0.0.1:0", "--slots", "0", "-d")
    empty.ok("start", "--name", "d", *where)
    empty.ok("stop", "d")
    again = empty.ok("start", "--name", "other", *where)
    assert again.startswith("peer d is up at ")
    assert again.endswith("\nstop   p2psched stop d\n")
    empty.ok("stop", "d")


def alive(pid: int) -> bool:
    """Not of an ended process that nobody has asked for its exit code yet."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def _address(started: str) -> str:
    return started.split(" is up at ")[1].split(": ", maxsplit=1)[0]


@pytest.mark.smoke
def test_ctrl_c_ends_a_peer_cleanly(empty: LiveCluster) -> None:
    peer = empty.start("a", slots=0)
    peer.process.send_signal(signal.SIGINT)
    assert peer.process.wait(COMMAND_S) == 0
    assert peer.log == ""


def test_what_keeps_a_peer_from_starting_is_one_line(empty: LiveCluster, tmp_path: Path) -> None:
    peer = empty.start("a", slots=0)
    wrong, open_to_all, foreign = tmp_path / "wrong", tmp_path / "open", tmp_path / "foreign"
    wrong.write_text("ab" * 32)
    wrong.chmod(0o600)
    open_to_all.write_text("ab" * 32)
    open_to_all.chmod(0o644)
    foreign.mkdir()
    (foreign / "photo.jpg").touch()
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = f"127.0.0.1:{busy.getsockname()[1]}"
        joining = ("--join", peer.address)
        cases = {
            ("--listen", port): (5, "is in use by another process: choose another --listen"),
            ("--data", str(peer.data)): (5, "is in use by process"),
            ("--data", str(foreign)): (5, "holds other files"),
            ("--listen", "0.0.0.0:0"): (5, "--insecure"),
            ("--python", "/nowhere/python"): (2, "name a Python"),
            (*joining, "--secret-file", str(wrong)): (5, "secret does not match"),
            (*joining, "--secret-file", str(open_to_all)): (5, "chmod 600"),
            ("--join", "127.0.0.1:1"): (5, "--secret-file"),
        }
        for number, (options, (code, text)) in enumerate(cases.items()):
            data = str(tmp_path / f"data{number}")
            words = ["start", "--name", "x", "--listen", "127.0.0.1:0", "--data", data, *options]
            done = empty.run(*words)
            assert (done.returncode, done.stdout) == (code, ""), options
            last = done.stderr.splitlines()[-1]
            assert last.startswith("error: "), options
            assert text in last
            assert "Traceback" not in done.stderr
    assert sorted(path.name for path in foreign.iterdir()) == ["photo.jpg"]
    # Once more the folder of the last one, which was to join, and nothing said of joining.
    words = ["start", "--name", "x", "--listen", "127.0.0.1:0", "--data", data]
    done = empty.run(*words)
    assert (done.returncode, done.stdout) == (5, "")
    assert "joined no cluster" in done.stderr


def test_a_folder_stays_with_its_cluster(empty: LiveCluster) -> None:
    empty.start("a", slots=0)
    other = empty.start("b", slots=0, join=False)
    assert empty.stop("b") == 0
    address = empty.peers["a"].address
    words = ["start", "--listen", "127.0.0.1:0", "--data", str(other.data), "--join", address]
    done = empty.run(*words, "--secret-file", str(empty.peers["a"].data / "secret"))
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_frozen_peer_is_left_for_another(empty: LiveCluster) -> None:
    for name in "abc":
        empty.start(name, slots=0)
    wait_until(lambda: voters(empty) == 3, "three voters")
    frozen = empty.peers["b"]

    async def work(client: Client) -> str:
        assert client.session.address == frozen.address
        frozen.process.send_signal(signal.SIGSTOP)
        await client.jobs()
        return client.session.address

    assert empty.ask(work, through="b") != frozen.address
    done = empty.run("jobs", "--peer", frozen.address)
    assert done.returncode == 0, done.stderr


def test_a_cluster_without_a_quorum_still_says_who_is_missing_and_keeps_its_word(
    empty: LiveCluster,
) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    empty.kill("b")
    empty.kill("c")

    def states() -> dict[str, str]:
        done = empty.run("peers", "--stale", "-o", "json")
        peers = json.loads(done.stdout)["peers"] if done.returncode == 0 else []
        return {peer["name"]: peer["state"] for peer in peers}

    wait_until(lambda: states() == {"a": "alive", "b": "suspect", "c": "suspect"}, "the missing")
    asked = empty.run("job", "wait", "last", "--patience", "0.5")
    assert asked.returncode == 3
    assert "no quorum" in asked.stderr
    # All killed: the first one that comes back in the background waits for its majority, and
    # whoever started it hears the outcome once the others are there.
    empty.kill("a")
    first = empty.popen(
        "start",
        "-d",
        "--name",
        "a",
        "--data",
        str(empty.peers["a"].data),
        *("--listen", empty.peers["a"].address),
    )
    wait_until(lambda: "waits for a majority" in empty.run("status").stderr or _is_up(empty), "a")
    for name in "bc":
        empty.restart_nowait(name)
    assert first.wait(COMMAND_S) == 0
    assert first.stdout is not None
    assert "peer a is up" in first.stdout.read()
    first.stdout.close()


def _is_up(cluster: LiveCluster) -> bool:
    return cluster.run("status", "--patience", "1").returncode == 0


def test_stop_means_a_name_before_it_means_an_id(empty: LiveCluster) -> None:
    empty.start("a")
    first = empty.peers["a"].id[0]  # of its id: a name that a person may well use
    empty.start(first if first != "a" else "aa")
    name = "aa" if first == "a" else first
    assert f"stopped peer {name} " in empty.ok("stop", name)
    assert empty.run("stop", name).returncode == 2
    assert "stopped peer a " in empty.ok("stop", empty.peers["a"].id[:6])


def test_the_ledger_of_one_peer_is_made_smaller_while_it_runs(empty: LiveCluster) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    payload = "x" * 50_000
    for _ in range(8):
        empty.ok("submit-job", "--wait", "--", "true", payload)
    done = json.loads(empty.ok("ledger", "compact", "b", "-o", "json"))["compact"]
    assert done["after_bytes"] < done["before_bytes"] // 2
    assert (done["snapshots"], done["snapshot_index"] > 1) == (1, True)
    which = ", ".join(f"`p2psched ledger compact {name}`" for name in "abc")
    assert which in empty.run("ledger", "compact").stderr
    again = empty.ok("ledger", "compact", "b")  # most likely of the same entry
    assert "before" in again
    status = json.loads(empty.ok("status", "--peer", empty.peers["b"].address, "-o", "json"))
    assert status["status"]["snapshot_index"] >= done["snapshot_index"]
    assert empty.stop("b") == 0
    for name in ("b", str(empty.folder / "b")):
        refused = empty.run("ledger", "compact", name)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "start it" in refused.stderr
    empty.restart("b")
    assert empty.run("submit-job", "--wait", "--", "true").returncode == 0


def test_peers_with_another_timing_than_their_leader_say_so(
    empty: LiveCluster,
) -> None:
    empty.start("a", options=["--timing", "edge"])
    for name in "bc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")

    def status(name: str) -> str:
        return empty.ok("status", "--peer", empty.peers[name].address)

    def term() -> int:
        found = json.loads(empty.ok("status", "--peer", empty.peers["b"].address, "-o", "json"))
        return int(found["status"]["term"])

    wait_until(lambda: "leader speaks every 500 ms: start all peers" in status("b"), "b to say so")
    before = term()
    for _ in range(4):
        empty.ok("submit-job", "--wait", "--", "sleep", "0.5")
    assert term() == before
    assert "speaks" not in status("a")
    wait_until(lambda: "timing-differs" in empty.peers["b"].log, "the log of b")


def test_status_of_a_frozen_peer_is_not_answered_by_another(empty: LiveCluster) -> None:
    for name in "ab":
        empty.start(name)
    frozen = empty.peers["b"]
    frozen.process.send_signal(signal.SIGSTOP)
    asked = empty.run("status", "--peer", frozen.address, "--patience", "1")
    frozen.process.send_signal(signal.SIGCONT)
    assert (asked.returncode, asked.stdout) == (3, "")


def test_an_output_that_takes_nothing_more_is_one_line(empty: LiveCluster) -> None:
    empty.start("a")
    with Path("/dev/full").open("w") as full:
        done = empty.run("peers", stdout=full)
    assert done.returncode == 74
    assert done.stderr == "error: can't write the output: No space left on device\n"


def test_a_program_finds_its_peer_as_the_command_line_does(
    empty: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.start("a")
    monkeypatch.setenv("P2PSCHED_RUNTIME_DIR", empty.env["P2PSCHED_RUNTIME_DIR"])

    async def main() -> str:
        async with Client() as client:
            return (await client.status()).info.name

    assert asyncio.run(main()) == "a"
