"""Wishes without tasks: what their callers hear, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import cast

import pytest

from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Drain,
    DrainMode,
    Forget,
    Outcome,
    Pin,
    Rejected,
)
from p2psched.model.errors import Refused, Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.keep_messages import ForgetJob, PinJob
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import (
    Answer,
    AnswerBody,
    Call,
    CallBody,
    CancelJob,
    Done,
    DrainPeer,
    Failure,
    GetStatus,
    Wish,
)
from p2psched.net.link import Connection
from p2psched.net.patience import Patience
from p2psched.peer.answering import Answering
from p2psched.peer.scheduler_loop import Heard, SchedulerLoop
from p2psched.peer.wishes import Wishes
from tests.peer.blob_rig import until
from tests.peer.test_submissions import FakeConnection

JOB, PEER = JobId("a" * 32), PeerId("b" * 32)


class FakeScheduling:
    """A `SchedulerLoop` whose commands commit when the test says so."""

    def __init__(self) -> None:
        self.proposed: dict[int, tuple[Command, Heard]] = {}
        self.at_once: Outcome | None = None
        self.given_up: list[int] = []

    def propose_nowait(self, command: Command, heard: Heard) -> int:
        if self.at_once is not None:
            heard(self.at_once)
            return 0
        number = len(self.proposed) + 1
        self.proposed[number] = (command, heard)
        return number

    def give_up(self, tag: int) -> None:
        self.given_up.append(tag)
        del self.proposed[tag]

    def commit(self, outcome: Outcome | Unavailable) -> Command:
        _, (command, heard) = self.proposed.popitem()
        heard(outcome)
        return command


class Rig:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.scheduling = FakeScheduling()
        self.wishes = Wishes(cast("SchedulerLoop", self.scheduling))
        self.connection = FakeConnection()
        self.served: list[CallBody] = []
        self.answering = Answering(group, self._serve, wishes=self.wishes)

    async def _serve(self, body: CallBody) -> AnswerBody:
        self.served.append(body)
        return Done()

    def call(self, body: CallBody, number: int = 1) -> None:
        self.answering.on_call(cast("Connection", self.connection), Call(number, body))


def run(story: Callable[[Rig], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            rig = Rig(group)
            await story(rig)
        assert rig.scheduling.proposed == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wish", "command"),
    [
        (CancelJob(JOB), Cancel(JOB)),
        (ForgetJob(JOB), Forget(JOB)),
        (PinJob(JOB, False), Pin(JOB, False)),
        (DrainPeer(PEER, DrainMode.CORDON), Drain(PEER, DrainMode.CORDON)),
    ],
)
def test_wish_is_proposed_at_once_and_answered_with_its_outcome(
    wish: Wish, command: Command
) -> None:
    async def story(rig: Rig) -> None:
        rig.call(wish)
        assert rig.connection.sent == []
        assert rig.scheduling.commit(Acknowledged()) == command
        assert rig.connection.sent == [Answer(1, Done())]
        assert rig.served == []

    run(story)


def test_outcome_may_come_before_the_proposal_is_numbered() -> None:
    async def story(rig: Rig) -> None:
        rig.scheduling.at_once = Rejected(Refused.code, "it still runs")
        rig.call(ForgetJob(JOB), 7)
        (failure,) = rig.connection.sent
        assert isinstance(failure, Failure)
        assert (failure.id, failure.code) == (7, Refused.code)
        assert failure.message == "it still runs"
        assert rig.scheduling.given_up == []

    run(story)


def test_peer_that_stops_says_so() -> None:
    async def story(rig: Rig) -> None:
        rig.call(PinJob(JOB, True))
        rig.scheduling.commit(Unavailable("this peer is stopping"))
        (failure,) = rig.connection.sent
        assert isinstance(failure, Failure)
        assert failure.code == Unavailable.code

    run(story)


def test_without_a_majority_a_wish_ends_and_is_given_up() -> None:
    async def story(rig: Rig) -> None:
        rig.wishes.committing = Patience(0.01)  # type: ignore[misc]  # not the seconds of real life
        rig.call(PinJob(JOB, True))
        await until(lambda: bool(rig.connection.sent))
        (failure,) = rig.connection.sent
        assert isinstance(failure, Failure)
        assert failure.code == Unavailable.code
        assert rig.scheduling.given_up == [1]

    run(story)


def test_wishes_of_a_connection_that_is_gone_are_given_up() -> None:
    async def story(rig: Rig) -> None:
        rig.call(PinJob(JOB, True), 1)
        rig.call(CancelJob(JOB), 2)
        rig.answering.on_closed(cast("Connection", rig.connection))
        assert sorted(rig.scheduling.given_up) == [1, 2]
        assert rig.connection.sent == []

    run(story)


def test_open_wishes_count_among_the_calls_of_their_connection() -> None:
    async def story(rig: Rig) -> None:
        for number in range(CALLS_IN_FLIGHT_MAX):
            rig.call(PinJob(JOB, True), number)
        rig.call(PinJob(JOB, True), CALLS_IN_FLIGHT_MAX)
        (failure,) = rig.connection.sent
        assert isinstance(failure, Failure)
        assert failure.busy
        rig.scheduling.commit(Acknowledged())
        rig.call(GetStatus(), CALLS_IN_FLIGHT_MAX + 1)
        await until(lambda: bool(rig.served))
        while rig.scheduling.proposed:
            rig.scheduling.commit(Acknowledged())

    run(story)


def test_slow_reader_is_told_to_ask_again() -> None:
    async def story(rig: Rig) -> None:
        rig.call(PinJob(JOB, True))
        rig.connection.has_room = False
        rig.scheduling.commit(Acknowledged())
        (failure,) = rig.connection.sent
        assert isinstance(failure, Failure)
        assert failure.code == Unavailable.code

    run(story)
