"""The group of real peers: a voter that is gone is replaced, who was removed stops and says why,
and people say who votes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench.judge import judge
from p2psched.cli.complete import complete_members
from p2psched.client.client import Client
from p2psched.core.machine import Machine
from p2psched.peer.verify import ReadOnlyDisk, fold
from p2psched.store.recovery import read_segments
from p2psched.store.snapshots import find_standing
from tests.cluster import LiveCluster, wait_until
from tests.integration import work

pytestmark = pytest.mark.process

AWAY = ("--replace-after", "3s")
TASKS = 300


def peers_of(cluster: LiveCluster) -> dict[str, dict[str, Any]]:
    """By id: names may be used twice."""
    found = json.loads(cluster.ok("peers", "-o", "json"))["peers"]
    return {peer["id"]: peer for peer in found}


def voters(cluster: LiveCluster) -> set[str]:
    """Names."""
    found = peers_of(cluster).values()
    return {peer["name"] for peer in found if peer["role"] in {"leader", "voter"}}


def role_of(cluster: LiveCluster, name: str) -> str:
    identity = cluster.peers[name].id
    return str(peers_of(cluster).get(identity, {}).get("role"))


def said(cluster: LiveCluster, *words: str) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(cluster.ok(*words, "-o", "json"))
    return done


def folded(cluster: LiveCluster, name: str) -> Machine:
    """What the ledger of a stopped peer says."""
    disk = ReadOnlyDisk(cluster.peers[name].data / "ledger")
    log = read_segments(disk)
    return fold(log, find_standing(disk, log))


@pytest.fixture
def four(live: LiveCluster) -> LiveCluster:
    """Three voters and a spare."""
    for name in "abcd":
        live.start(name, options=AWAY)
    wait_until(lambda: len(voters(live)) == 3, "three voters")
    return live


@pytest.mark.smoke
def test_a_killed_voter_is_replaced_and_the_job_goes_on(four: LiveCluster) -> None:
    roles = {name: role_of(four, name) for name in "abcd"}
    dead = next(name for name in "dcba" if roles[name] == "voter")
    spare = next(name for name in "abcd" if roles[name] == "learner")
    others = next(name for name in "abcd" if roles[name] == "leader")

    async def story(client: Client) -> None:
        job = await client.map(work.square, range(TASKS))
        four.kill(dead)
        await judge(job, [number * number for number in range(TASKS)])

    four.ask(story, through=others)
    wait_until(lambda: role_of(four, spare) in {"voter", "leader"}, "the spare votes")
    wait_until(lambda: role_of(four, dead) == "learner", "the dead one doesn't")
    assert len(voters(four)) == 3
    four.restart(dead)  # it is who it was, and follows
    wait_until(lambda: peers_of(four)[four.peers[dead].id]["lag"] == 0, "it has caught up")
    assert role_of(four, dead) == "learner"


def test_who_was_removed_stops_and_comes_back_as_somebody_else(four: LiveCluster) -> None:
    leader = next(name for name in "abcd" if role_of(four, name) == "leader")
    other = next(name for name in "abcd" if name != leader)
    old = four.peers[leader].id

    async def story(client: Client) -> None:
        job = await client.map(work.square, range(TASKS))
        done = await asyncio.to_thread(said, four, "peer", "remove", leader)
        assert done["peer"]["role"] == "removed"
        await judge(job, [number * number for number in range(TASKS)])

    four.ask(story, through=other)
    assert four.peers[leader].process.wait(20) == 5
    assert "was removed from its cluster" in four.peers[leader].log
    again = said(four, "peer", "remove", leader)["peer"]
    assert (again["id"], again["changed"]) == (old, False)
    wait_until(lambda: old not in peers_of(four), "it is down, and no peer any more")
    wait_until(lambda: len(voters(four)) == 3, "three voters again")
    # Under its old identity nobody takes it.
    refused = four.restart_nowait(leader)
    assert refused.process.wait(30) == 5
    assert "--anew" in refused.log
    assert said(four, "peer", "remove", leader)["peer"]["id"] == old
    data = str(four.peers[leader].data)
    detached = four.run("start", "--data", data, "--listen", "127.0.0.1:0", "--detach")
    assert (detached.returncode, "--anew" in detached.stderr) == (5, True), detached.stderr
    four.peers[leader].options = (*AWAY, "--anew")
    four.restart(leader)
    assert four.peers[leader].id != old
    aside = four.peers[leader].data.with_name(f"{leader}.removed-{old[:8]}")
    assert (aside / "identity").exists()
    wait_until(lambda: role_of(four, leader) == "learner", "it follows")
    # Its process was the old one, too, for a moment: the name is the new one's alone.
    four.ok("stop", leader)
    assert four.peers[leader].process.wait(20) == 0
    # From here on the flag changes nothing.
    machine = folded(four, leader)
    assert (old in machine.peers, machine.gone) == (False, {old: leader})
    new = four.peers[leader].id
    assert four.restart(leader).id == new


def test_people_say_who_votes_and_may_say_it_twice(
    four: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PSCHED_RUNTIME_DIR", str(four.runtime_dir))
    assert [name for name, _ in complete_members("")] == list("abcd")
    spare = next(name for name in "abcd" if role_of(four, name) == "learner")
    leader = next(name for name in "abcd" if role_of(four, name) == "leader")
    done = said(four, "peer", "promote", spare)["peer"]
    assert (done["role"], done["changed"], done["voters"]) == ("voter", True, 3)
    assert said(four, "peer", "promote", spare)["peer"]["changed"] is False
    done = said(four, "peer", "demote", leader)["peer"]
    assert (done["role"], done["changed"]) == ("learner", True)
    assert said(four, "peer", "demote", leader)["peer"]["changed"] is False
    wait_until(lambda: len(voters(four)) == 3, "another one votes")
    assert leader not in voters(four)
    assert "already" in four.ok("peer", "demote", leader)


def test_what_nobody_could_take_over_is_refused(live: LiveCluster) -> None:
    live.start("a", options=AWAY)
    live.start("b", options=AWAY)
    wait_until(lambda: role_of(live, "b") == "learner", "it follows")
    assert voters(live) == {"a"}  # two would stand less than one
    for words, code, why in (
        (("remove", "a"), 5, "is the only voter"),
        (("demote", "a"), 5, "is the only voter"),
        (("remove", "nobody"), 2, "is no peer of this cluster"),
        (("voters", "4"), 2, "voters are 1, 3, 5 or 7"),
    ):
        done = live.run("peer", *words)
        assert (done.returncode, why in done.stderr) == (code, True), done.stderr
    live.start("c", options=AWAY)
    wait_until(lambda: len(voters(live)) == 3, "three voters")
    leader = next(name for name in "abc" if role_of(live, name) == "leader")
    other, dead = (name for name in "abc" if name != leader)
    done = live.run("peer", "demote", other)
    assert (done.returncode, "no other peer can take" in done.stderr) == (5, True), done.stderr
    live.kill(dead)

    def is_refused() -> bool:
        done = live.run("peer", "remove", other)
        return done.returncode == 5 and "no majority" in done.stderr

    wait_until(is_refused, "the refusal to lose the majority that is up")
    assert said(live, "peer", "remove", dead)["peer"]["role"] == "removed"
    wait_until(lambda: len(voters(live)) == 1, "one voter of two peers")


def test_a_wiped_voter_comes_back_as_a_new_peer_and_its_old_identity_is_replaced(
    four: LiveCluster, tmp_path: Path
) -> None:
    four.run("peer", "voters", "3")  # else four that answer and an old one are five
    wiped = next(name for name in "dcba" if role_of(four, name) == "voter")
    old = four.peers[wiped].id
    four.kill(wiped)
    four.peers[wiped].data.rename(tmp_path / "gone")
    secret = tmp_path / "gone" / "secret"
    survivor = next(name for name in "abcd" if name != wiped)
    join = ("--join", four.peers[survivor].address, "--secret-file", str(secret))
    four.wait_ready(four.move_nowait(wiped, "127.0.0.1:0", *AWAY, *join))
    assert four.peers[wiped].id != old
    wait_until(lambda: peers_of(four)[old]["role"] == "learner", "the old identity is replaced")
    assert len(voters(four)) == 3
