"""All peers come back at other addresses: who they are stands on their disks, where they are is
learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.client.client import Client
from tests.cli.test_peers import voters
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

NEW = "127.0.0.1:0"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as live:
        yield live


def start(cluster: LiveCluster, names: str, *, learners: str = "") -> None:
    for name in names:
        cluster.start(name, options=["--no-vote"] if name in learners else [])
    count = min(3, len(names) - len(learners))
    wait_until(lambda: voters(cluster) == count, "the voters")


def stop_all(cluster: LiveCluster) -> None:
    """At once: none of them can be told where another is."""
    for peer in cluster.peers.values():
        peer.process.kill()
    for peer in cluster.peers.values():
        peer.process.wait()


def move(cluster: LiveCluster, where: dict[str, str], *options: str) -> None:
    for name, listen in where.items():
        given = cluster.peers[name].options
        cluster.move_nowait(name, listen, *given, *options)


def agree(cluster: LiveCluster) -> None:
    """All are up, each reaches each, and the cluster works."""
    for peer in cluster.peers.values():
        cluster.wait_ready(peer)

    def all_alive() -> bool:
        views = json.loads(cluster.ok("peers", "-o", "json"))["peers"]
        states = {view["name"]: (view["state"], view["address"]) for view in views}
        return states == {p.name: ("alive", p.address) for p in cluster.peers.values()}

    wait_until(all_alive, "all peers to be alive at their new addresses")
    cluster.ok("submit-job", "--wait", "--", "true")


@pytest.mark.parametrize("kept", ["a", "b", "c"])
def test_one_voter_keeps_its_address_and_the_others_find_each_other_there(
    cluster: LiveCluster, kept: str
) -> None:
    start(cluster, "abc")
    stop_all(cluster)
    move(cluster, {name: cluster.peers[name].address if name == kept else NEW for name in "abc"})
    agree(cluster)


def test_a_peer_that_never_votes_keeps_its_address_and_the_voters_find_each_other_there(
    cluster: LiveCluster,
) -> None:
    start(cluster, "abcd", learners="d")
    stop_all(cluster)
    move(cluster, {"a": NEW, "b": NEW, "c": NEW, "d": cluster.peers["d"].address})
    agree(cluster)


def test_peers_that_have_each_others_addresses_find_each_other(cluster: LiveCluster) -> None:
    """At each address that a peer knows somebody else answers, or it does itself."""
    start(cluster, "abc")
    stop_all(cluster)
    a, b, c = (cluster.peers[name].address for name in "abc")
    move(cluster, {"a": b, "b": c, "c": a})
    agree(cluster)


def test_all_are_new_and_each_is_told_of_one_other(cluster: LiveCluster) -> None:
    start(cluster, "abc")
    stop_all(cluster)
    move(cluster, {"a": NEW})
    told = listening_at(cluster, "a")
    move(cluster, {"b": NEW}, "--join", told)
    told = listening_at(cluster, "b")
    move(cluster, {"c": NEW}, "--join", told)
    agree(cluster)


def test_all_are_new_and_one_that_never_votes_is_told_to_all(cluster: LiveCluster) -> None:
    start(cluster, "abcd", learners="d")
    stop_all(cluster)
    move(cluster, {"d": NEW})
    told = listening_at(cluster, "d")
    move(cluster, {"a": NEW, "b": NEW, "c": NEW}, "--join", told)
    agree(cluster)


@pytest.mark.smoke
def test_all_are_new_and_one_is_told_of_the_others(cluster: LiveCluster) -> None:
    start(cluster, "abc")
    stop_all(cluster)
    move(cluster, {"b": NEW, "c": NEW})
    others = [word for name in "bc" for word in ("--join", listening_at(cluster, name))]
    move(cluster, {"a": NEW}, *others)
    agree(cluster)


def listening_at(cluster: LiveCluster, name: str) -> str:
    """Where a peer is that waits for the others, as its log says."""
    peer = cluster.peers[name]
    pid = peer.process.pid

    def port() -> int | None:
        inodes = set()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                text = str(link.readlink())
            except OSError:
                continue
            if text.startswith("socket:["):
                inodes.add(text[8:-1])
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # it listens
                return int(fields[1].rpartition(":")[2], 16)
        return None

    wait_until(lambda: port() is not None, f"{name} to listen")
    return f"127.0.0.1:{port()}"


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
def test_names_and_ipv6_addresses_are_addresses(cluster: LiveCluster, host: str) -> None:
    options = ["--advertise", host] if host == "localhost" else []
    for name in "abc":
        cluster.start(name, listen=f"{host}:0", options=options)
    wait_until(lambda: voters(cluster) == 3, "three voters")
    assert {p.address.rpartition(":")[0] for p in cluster.peers.values()} == {host}
    stop_all(cluster)
    kept = cluster.peers["a"].address
    move(cluster, {"a": kept, "b": f"{host}:0", "c": f"{host}:0"})
    agree(cluster)


def test_an_old_address_that_is_somebody_elses_by_now_costs_nothing(cluster: LiveCluster) -> None:
    start(cluster, "abc")
    stop_all(cluster)
    taken = cluster.peers["b"].address
    with LiveCluster(cluster.folder / "foreign") as foreign:
        foreign.folder.mkdir()
        foreign.start("x", listen=taken)
        move(cluster, {"a": cluster.peers["a"].address, "b": NEW, "c": NEW})
        agree(cluster)
        assert [view.info.name for view in foreign.ask(Client.peers)] == ["x"]
