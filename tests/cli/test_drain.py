"""`peer drain` and `stop --drain` with real peers: nothing is lost, and little runs twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from p2psched.client.client import Client
from p2psched.model.peer_messages import PeerView
from tests.cli.test_peers import voters
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

TASKS = 40
# Says where it begins, and waits for its end.
TASK = """
echo "$P2P_INDEX $P2P_PEER" >> "$1/starts"
while [ ! -e "$1/go" ]; do sleep 0.05; done
echo "result $P2P_INDEX"
"""


class Side:
    """Where tasks say that they begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts = folder / "starts"
        self._starts.touch()

    def starts(self) -> list[tuple[int, str]]:
        lines = self._starts.read_text().split("\n")[:-1]
        return [(int(index), peer) for index, peer in map(str.split, lines)]

    def of(self, peer: str) -> list[int]:
        return [index for index, where in self.starts() if where == peer]

    def let_go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def three(empty: LiveCluster) -> LiveCluster:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    return empty


def views(cluster: LiveCluster) -> dict[str, PeerView]:
    return {view.info.name: view for view in cluster.ask(Client.peers)}


def leader(cluster: LiveCluster) -> str:
    wait_until(lambda: "leader" in {v.role for v in views(cluster).values()}, "a leader")
    return next(name for name, view in views(cluster).items() if view.role == "leader")


def wait_drained(cluster: LiveCluster, name: str) -> None:
    """It may lead once more meanwhile, if the machine is so busy that the leader is missed."""

    def drained() -> bool:
        view = views(cluster)[name]
        return view.drain == "drained" and view.role != "leader"

    wait_until(drained, f"{name} to be drained, and not to lead")


def submit(cluster: LiveCluster, side: Side, tasks: int = TASKS) -> str:
    # All of it is somebody's at once, and as much the one's as the other's.
    array = ("--array", f"0-{tasks - 1}", "--policy", "round-robin")
    words = ("submit-job", "-o", "quiet", *array, "--", "sh", "-c", TASK, "task", str(side.folder))
    return cluster.ok(*words).strip()


def results(cluster: LiveCluster, job: str) -> dict[int, str]:
    tasks = json.loads(cluster.ok("job", "results", job, "-o", "json"))["results"]
    return {task["index"]: task["stdout"] for task in tasks}


def expected(tasks: int = TASKS) -> dict[int, str]:
    return {index: f"result {index}\n" for index in range(tasks)}


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_peer_is_drained_under_load_and_no_task_runs_twice(
    three: LiveCluster, tmp_path: Path, who: str
) -> None:
    side = Side(tmp_path)
    first = leader(three)
    name = first if who == "leader" else next(n for n in three.peers if n != first)
    job = submit(three, side)
    wait_until(lambda: len(side.starts()) == 6, "all slots to be busy")
    owned = views(three)[name].owned
    assert owned > 2  # some of it waits there, and is given back
    draining = three.popen("peer", "drain", name, "--timeout", "60s")
    wait_until(lambda: views(three)[name].owned == 2, "the rest to be given back")
    assert views(three)[name].drain == "draining"
    assert "draining" in three.ok("peers")
    began = side.of(name)
    side.let_go()
    out, _ = draining.communicate(timeout=60)
    assert draining.returncode == 0
    assert out == f"peer {name} is drained\n"
    assert three.run("job", "wait", job).returncode == 0
    assert results(three, job) == expected()
    assert side.of(name) == began  # it begins nothing more
    assert set(Counter(index for index, _ in side.starts()).values()) == {1}
    wait_drained(three, name)
    assert views(three)[name].owned == 0
    assert "given back" in three.ok("job", "history", job)
    # It stays a member that serves.
    assert three.ok("jobs", "-o", "quiet", "--peer", three.peers[name].address).strip()
    status = json.loads(three.ok("status", "-o", "json", "--peer", three.peers[name].address))
    assert status["status"]["drain"].startswith("drain")


def test_a_drain_survives_its_peer_and_its_leader_and_is_taken_back(
    three: LiveCluster, tmp_path: Path
) -> None:
    first = leader(three)
    name = next(n for n in three.peers if n != first)
    for _ in range(2):  # safe to repeat
        three.ok("peer", "drain", name)
    three.kill(first)
    three.kill(name)
    three.restart_nowait(name)
    three.wait_ready(three.peers[name])
    three.restart(first)
    wait_drained(three, name)
    side = Side(tmp_path)
    side.let_go()
    job = submit(three, side, 12)
    assert three.run("job", "wait", job).returncode == 0
    assert not side.of(name)
    for _ in range(2):
        assert three.ok("peer", "drain", name, "--undo") == f"peer {name} takes tasks again\n"
    job = submit(three, side, 12)
    assert three.run("job", "wait", job).returncode == 0
    assert side.of(name)


@pytest.mark.smoke
def test_a_cordoned_peer_ends_what_it_has_and_gets_nothing_more(
    empty: LiveCluster, tmp_path: Path
) -> None:
    empty.start("a", slots=1)
    empty.start("b", slots=0)
    side = Side(tmp_path)
    job = submit(empty, side, 1)
    wait_until(lambda: len(side.starts()) == 1, "a task to begin")
    assert empty.ok("peer", "cordon", "a") == "peer a is cordoned\n"
    later = submit(empty, side, 2)
    assert "all peers that run tasks are drained or cordoned" in empty.ok("job", "show", later)
    side.let_go()
    assert empty.run("job", "wait", job).returncode == 0, "what it had it keeps"
    assert views(empty)["a"].drain == "cordoned"
    assert empty.run("job", "wait", later, "--timeout", "500ms").returncode == 4
    assert empty.ok("peer", "uncordon", "a") == "peer a takes tasks again\n"
    assert empty.run("job", "wait", later).returncode == 0
    assert len(side.starts()) == 3


def test_the_only_peer_with_slots_is_drained_and_work_waits_and_says_why(
    empty: LiveCluster, tmp_path: Path
) -> None:
    empty.start("a", slots=1)
    empty.start("b", slots=0)
    side = Side(tmp_path)
    job = submit(empty, side, 3)
    wait_until(lambda: len(side.starts()) == 1, "a task to begin")
    late = empty.run("peer", "drain", "a", "--timeout", "500ms")
    assert late.returncode == 4
    assert "no other peer takes tasks" in late.stderr
    assert "1 task" in late.stderr
    assert empty.run("peer", "drain", "nobody").returncode == 2
    side.let_go()
    drained = json.loads(empty.ok("peer", "drain", "a", "-o", "json"))["peer"]
    assert (drained["drain"], drained["owned"]) == ("drained", 0)
    assert "all peers that run tasks are drained or cordoned" in empty.ok("job", "show", job)
    assert "voter, drained" in empty.ok("status", "--peer", empty.peers["a"].address).replace(
        "leader", "voter"
    )
    empty.ok("peer", "drain", "a", "--undo")
    assert empty.run("job", "wait", job).returncode == 0
    assert results(empty, job) == expected(3)
    assert set(Counter(index for index, _ in side.starts()).values()) == {1}


def test_large_results_are_copied_before_their_peer_is_drained(
    three: LiveCluster, tmp_path: Path
) -> None:
    name = next(n for n in three.peers if n != leader(three))
    others = [n for n in three.peers if n != name]
    for other in others:
        three.ok("peer", "drain", other, "--no-wait")
    words = ("--array", "0-2", "--copies", "1", "--collect", "out")
    run = ("--", "sh", "-c", "head -c 5000000 /dev/urandom > out")
    job = three.ok("submit-job", "-o", "quiet", *words, *run).strip()
    assert three.run("job", "wait", job).returncode == 0
    for other in others:
        three.ok("peer", "drain", other, "--undo")
    done = three.run("peer", "drain", name)
    assert done.returncode == 0
    assert "large result" in done.stderr
    three.kill(name)
    three.ok("job", "results", job, "--save", str(tmp_path / "saved"))
    sizes = [path.stat().st_size for path in (tmp_path / "saved").glob("*/out")]
    assert sizes == [5_000_000] * 3


def test_a_peer_that_is_stopped_with_drain_takes_tasks_once_it_is_started_again(
    three: LiveCluster, tmp_path: Path
) -> None:
    name = next(n for n in three.peers if n != leader(three))
    side = Side(tmp_path)
    job = submit(three, side, 12)
    wait_until(lambda: len(side.starts()) == 6, "all slots to be busy")
    stopping = three.popen("stop", name, "--drain")
    wait_until(lambda: views(three)[name].drain == "draining", "the drain")
    assert three.peers[name].process.poll() is None
    side.let_go()
    stopping.communicate(timeout=60)
    assert stopping.returncode == 0
    assert three.peers[name].process.wait(10) == 0
    assert three.run("job", "wait", job).returncode == 0
    assert set(Counter(index for index, _ in side.starts()).values()) == {1}
    three.restart(name)
    assert not views(three)[name].drain
    assert three.run("stop", name, "--timeout", "1s").returncode == 2
