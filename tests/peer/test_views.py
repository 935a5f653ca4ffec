"""What people type and see: jobs by id, prefix and name; peers with and without a leader."""

from __future__ import annotations

import pytest

from p2psched.core.machine import Machine
from p2psched.model.commands import Command, Envelope, PeerDown, PeerInfo, PeerUp, SubmitJob
from p2psched.model.errors import NotFound
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.member_messages import Standing
from p2psched.model.raft import Member, Membership
from p2psched.model.taskset import TaskSet
from p2psched.peer.views import find_job, peer_views, with_standings

A, B, C = (PeerId(letter * 32) for letter in "abc")


def machine_of(*commands: Command) -> Machine:
    machine = Machine()
    envelopes = tuple(Envelope(A, n, command) for n, command in enumerate(commands))
    machine.apply(Committed(1, 0, 0, envelopes))
    return machine


def submit(job: str, name: str) -> SubmitJob:
    return SubmitJob(JobId(job), JobSpec(name, TaskSet.of(0, 1), ProgramWork(("true",))))


def up(peer: PeerId, name: str) -> PeerUp:
    return PeerUp(PeerInfo(peer, 1, name, f"host-{name}:1", 7, 2, "1", "3.11"))


OLD, NEW = "5d9b" + "0" * 28, "77" + "1" * 30


def test_a_job_is_found_by_id_prefix_name_and_last() -> None:
    machine = machine_of(submit(OLD, "sweep"), submit(NEW, "sweep"))
    for text, job in ((OLD, OLD), ("5d9", OLD), ("5D9B", OLD), ("sweep", NEW), ("last", NEW)):
        assert find_job(machine, text).id == job


def test_a_name_that_looks_like_the_digits_of_another_job_hits_neither() -> None:
    machine = machine_of(submit(OLD, "sweep"), submit(NEW, "5d9"))
    with pytest.raises(NotFound, match="fits 2 jobs"):
        find_job(machine, "5d9")
    assert find_job(machine, "5d9b").id == OLD
    assert find_job(machine, "77").id == NEW


@pytest.mark.parametrize("text", ["", "nothing", "ffff"])
def test_what_fits_no_job_says_where_to_look(text: str) -> None:
    with pytest.raises(NotFound, match="p2psched jobs"):
        find_job(machine_of(submit(OLD, "sweep")), text)


def test_without_a_leader_peers_show_whom_this_one_reaches() -> None:
    members = Membership(tuple(Member(p, n, f"host-{n}:1") for p, n in ((A, "a"), (B, "b"))))
    views = peer_views(machine_of(up(A, "a"), up(B, "b")), members, None, {}, frozenset({A}))
    assert [(v.info.name, v.role, v.state) for v in views] == [
        ("a", "voter", "alive"),
        ("b", "voter", "suspect"),
    ]


def test_members_that_the_log_names_are_shown_before_anything_is_applied() -> None:
    members = Membership((Member(A, "a", "here:1"),), (Member(C, "c", "there:1"),))
    views = peer_views(Machine(), members, None, {}, frozenset({A}))
    assert [(v.info.name, v.info.address, v.role, v.state) for v in views] == [
        ("a", "here:1", "voter", "alive"),
        ("c", "there:1", "learner", "suspect"),
    ]


def test_who_was_removed_is_shown_until_it_is_gone() -> None:
    members = Membership((Member(A, "a", "here:1", zone="x"),), removed=(B,))
    alive = machine_of(up(A, "a"), up(B, "b"))
    views = peer_views(alive, members, A, {})
    assert [(v.info.name, v.role, v.zone) for v in views] == [
        ("a", "leader", "x"),
        ("b", "removed", ""),
    ]
    gone = machine_of(up(A, "a"), up(B, "b"), PeerDown(B, 1, "silent"))
    assert [v.info.name for v in peer_views(gone, members, A, {})] == ["a"]


def test_lag_is_counted_from_whoever_has_applied_most() -> None:
    members = Membership((Member(A, "a", "a:1"), Member(B, "b", "b:1"), Member(C, "c", "c:1")))
    views = peer_views(machine_of(up(A, "a"), up(B, "b"), up(C, "c")), members, A, {})
    shown = with_standings(views, {A: Standing(3, 40), B: Standing(2, 25)})
    assert [(v.term, v.applied, v.lag) for v in shown] == [
        (3, 40, 0),
        (2, 25, 15),
        (None, None, None),
    ]
