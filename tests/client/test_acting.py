"""A client's acts: numbered, repeated under their numbers, and begun anew under another name."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from p2psched.client import acting
from p2psched.client.acting import Acting
from p2psched.model.act_messages import DidSo, Do
from p2psched.model.errors import Forgotten, P2PSchedError, Refused, Unavailable, UsageError
from p2psched.model.lease_actions import (
    EndLease,
    Enrol,
    Enrolled,
    LeaseOver,
    LeaseTaken,
    TakeLease,
)
from p2psched.model.messages import CallBody
from p2psched.net.calls import Heard
from tests.client.loops import in_loop

T = TypeVar("T")
A = f"{1:032x}"


class Cluster:
    """Answers what it is told to, in order; then that it is done."""

    def __init__(self, *answers: P2PSchedError) -> None:
        self.answers = list(answers)
        self.done: list[Do] = []
        self.repeated: list[Do] = []  # of those, what came by the patient way
        self.names = 0
        self.is_quick = True
        self.held: list[Heard] | None = None

    def _answer(self, body: CallBody) -> DidSo:
        assert isinstance(body, Do)
        if isinstance(body.action, Enrol):
            self.names += 1
            return DidSo(Enrolled(self.names))
        self.done.append(body)
        if self.answers:
            raise self.answers.pop(0)
        return DidSo(LeaseOver())

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        assert spent_s >= 0
        answer = self._answer(body)
        if isinstance(body, Do) and not isinstance(body.action, Enrol):
            self.repeated.append(body)
        assert isinstance(answer, expect)
        return answer

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        if not self.is_quick:
            return False
        if self.held is not None:
            self.held.append(heard)
            assert isinstance(body, Do)
            self.done.append(body)
            return True
        try:
            heard(self._answer(body))
        except P2PSchedError as error:
            heard(error)
        return True


def numbers(cluster: Cluster) -> list[tuple[int, int, int]]:
    return [(do.caller, do.number, do.settled) for do in cluster.done]


@in_loop
async def test_acts_are_numbered_and_settle_those_before_them() -> None:
    cluster = Cluster()
    client = Acting(cluster)
    for _ in range(3):
        assert await client.act(EndLease(A), LeaseOver) == LeaseOver()
    assert numbers(cluster) == [(1, 1, 1), (1, 2, 2), (1, 3, 3)]


@in_loop
async def test_what_is_open_is_not_settled() -> None:
    cluster = Cluster()
    client = Acting(cluster)
    await client.act(EndLease(A), LeaseOver)
    cluster.held = []
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(client.act(EndLease(A), LeaseOver))
        for _ in range(10):
            await asyncio.sleep(0)
        assert numbers(cluster) == [(1, 1, 1), (1, 2, 2), (1, 3, 2)]
        for heard in cluster.held:
            heard(DidSo(LeaseOver()))
    cluster.held = None
    await client.act(EndLease(A), LeaseOver)
    assert numbers(cluster)[-1] == (1, 4, 4)


@in_loop
async def test_a_lost_answer_is_asked_for_again_under_the_same_number() -> None:
    cluster = Cluster(Unavailable("the peer is gone"))
    client = Acting(cluster)
    await client.act(EndLease(A), LeaseOver)
    assert numbers(cluster) == [(1, 1, 1), (1, 1, 1)]
    assert len(cluster.repeated) == 1


@in_loop
async def test_a_client_that_was_forgotten_enrols_again_if_it_has_not_acted() -> None:
    cluster = Cluster(Forgotten("who are you"))
    client = Acting(cluster)
    await client.act(EndLease(A), LeaseOver)
    assert numbers(cluster) == [(1, 1, 1), (2, 1, 1)]


@in_loop
async def test_it_raises_that_it_was_forgotten_if_it_may_have_acted() -> None:
    cluster = Cluster(Unavailable("the peer is gone"), Forgotten("who are you"))
    client = Acting(cluster)
    with pytest.raises(Forgotten):
        await client.act(EndLease(A), LeaseOver)
    assert numbers(cluster) == [(1, 1, 1), (1, 1, 1)]


@in_loop
async def test_after_a_long_silence_it_enrols_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "IDLE_S", -1.0)
    cluster = Cluster()
    client = Acting(cluster)
    for _ in range(2):
        await client.act(EndLease(A), LeaseOver)
    assert numbers(cluster) == [(1, 1, 1), (2, 1, 1)]


@in_loop
async def test_many_that_begin_at_once_enrol_once_and_need_no_quick_way() -> None:
    cluster = Cluster()
    cluster.is_quick = False
    client = Acting(cluster)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(client.act(EndLease(A), LeaseOver))
    assert cluster.names == 1
    assert sorted(do.number for do in cluster.done) == [1, 2, 3, 4, 5]


@in_loop
async def test_what_can_not_be_is_not_sent() -> None:
    cluster = Cluster()
    client = Acting(cluster)
    with pytest.raises(UsageError, match="1 s to 24 h"):
        await client.act(TakeLease(A, 1), LeaseTaken)
    with pytest.raises(Refused, match="another version"):
        await client.act(TakeLease(A, 5_000), LeaseTaken)
    assert len(cluster.done) == 1
