"""One session for many calls: none too many at once, and one turn for all that fail together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from p2psched.client import session as module
from p2psched.client.session import (
    ASKS_MAX,
    POLL_SHORT_MS,
    POLLS_LONG_MAX,
    POLLS_MAX,
    QUICK_CALLS_MAX,
    Session,
)
from p2psched.model.errors import Busy, NotFound, Refused, Unavailable, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    CancelJob,
    Done,
    FetchResults,
    GetStatus,
    JobAccepted,
    ListJobs,
    Submit,
)
from p2psched.model.taskset import TaskSet
from p2psched.net.calls import CallClient, Heard
from p2psched.net.link import State
from tests.client.fake import turns

JOB = JobId("ab" * 16)


def unheard(answer: object) -> None:
    pytest.fail(f"nobody waits for {answer}")


@dataclass
class FakeLink:
    address: str
    peer: str = ""
    state: State = State.OPEN
    has_room: bool = True

    def close(self) -> None:
        self.state = State.CLOSED


@dataclass
class FakePeer:
    """Stands for a connection: every call waits until `answer` is set, and fails if it is None."""

    address: str
    connection: FakeLink
    answer: asyncio.Future[AnswerBody | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    asked: list[CallBody] = field(default_factory=list)
    quick: dict[int, Heard] = field(default_factory=dict)
    retry_after_s: float = 0.0
    busy: int = 0  # answers before the next one

    async def call(self, body: CallBody) -> AnswerBody:
        self.asked.append(body)
        if self.busy:
            self.busy -= 1
            raise Busy("busy: ask again", retry_after_s=self.retry_after_s)
        answer = await asyncio.shield(self.answer)
        if answer is None:
            raise Unavailable(f"{self.address} is gone", retry_after_s=self.retry_after_s)
        return answer

    def call_nowait(self, body: CallBody, heard: Heard) -> int:
        self.asked.append(body)
        self.quick[len(self.asked)] = heard
        return len(self.asked)

    def forget(self, number: int) -> None:
        del self.quick[number]

    async def close(self) -> None:
        self.connection.close()


class FakedSession(Session):
    """Connects to fake peers."""

    def __init__(self, *addresses: str, patience_s: float = 30.0) -> None:
        super().__init__(addresses, secret=b"", patience_s=patience_s)
        self.peers: list[FakePeer] = []

    async def _connect(self, address: str) -> CallClient:
        self.peers.append(FakePeer(address, FakeLink(address)))
        return cast("CallClient", self.peers[-1])


def test_calls_that_fail_together_turn_to_the_next_peer_once() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(session.call(CancelJob(JOB), Done)) for _ in range(10)]
            await turns()
            session.peers[0].answer.set_result(None)
            await turns()
            session.peers[1].answer.set_result(Done())
        assert all(call.result() == Done() for call in calls)
        assert [peer.address for peer in session.peers] == ["127.0.0.1:1", "127.0.0.1:2"]
        assert len(session.peers[1].asked) == 10

    asyncio.run(main())


def test_a_peer_that_says_goodbye_is_not_asked_again_and_the_next_one_is_asked_once() -> None:
    """A call that it still has fails only after another one has begun to connect."""

    async def main() -> None:
        session = FakedSession("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
        async with asyncio.TaskGroup() as group:
            early = group.create_task(session.call(CancelJob(JOB), Done))
            await turns()
            session.peers[0].connection.state = State.CLOSING
            late = group.create_task(session.call(CancelJob(JOB), Done))
            await turns()
            session.peers[0].answer.set_result(None)
            await turns()
            session.peers[1].answer.set_result(Done())
        assert (early.result(), late.result()) == (Done(), Done())
        assert [peer.address for peer in session.peers] == ["127.0.0.1:1", "127.0.0.1:2"]

    asyncio.run(main())


def test_another_peer_is_asked_at_once_and_only_when_all_have_been_the_call_waits() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1", "127.0.0.1:2")
        call = asyncio.create_task(session.call(CancelJob(JOB), Done))  # noqa: TID251
        for number in range(2):
            await turns()
            assert len(session.peers) == number + 1
            session.peers[number].retry_after_s = 60
            session.peers[number].answer.set_result(None)
        await turns()
        assert len(session.peers) == 2
        call.cancel()

    asyncio.run(main())


def test_more_calls_than_a_connection_takes_wait_for_their_turn() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1")
        async with asyncio.TaskGroup() as group:
            for _ in range(ASKS_MAX + 50):
                group.create_task(session.call(CancelJob(JOB), Done))
            await turns()
            peer = session.peers[0]
            assert len(peer.asked) == ASKS_MAX
            peer.answer.set_result(Done())
        assert len(peer.asked) == ASKS_MAX + 50

    asyncio.run(main())


def test_calls_that_wait_for_results_keep_nobody_else_waiting_and_get_shorter() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1")
        async with asyncio.TaskGroup() as group:
            for _ in range(POLLS_MAX + 50):
                group.create_task(session.call(FetchResults(JOB, 0, 10_000), Done))
            await turns()
            peer = session.peers[0]
            waits = [body.wait_ms for body in peer.asked if isinstance(body, FetchResults)]
            assert waits == [
                *[10_000] * POLLS_LONG_MAX,
                *[POLL_SHORT_MS] * (POLLS_MAX - POLLS_LONG_MAX),
            ]
            group.create_task(session.call(CancelJob(JOB), Done))
            await turns()
            assert peer.asked[-1] == CancelJob(JOB)
            peer.answer.set_result(Done())

    asyncio.run(main())


def test_when_the_patience_is_over_the_last_failure_is_told() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1", patience_s=0)
        await session.connection()
        session.peers[0].answer.set_result(None)
        with pytest.raises(Unavailable, match="is gone"):
            await session.call(ListJobs(), Done)

    asyncio.run(main())


def test_an_answer_of_another_kind_is_another_version() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1")
        await session.connection()
        session.peers[0].answer.set_result(Done())
        with pytest.raises(Refused, match="another version"):
            await session.call(GetStatus(), int)

    asyncio.run(main())


def test_a_session_belongs_to_one_event_loop() -> None:
    async def call(session: FakedSession) -> None:
        await session.connection()
        session.peers[0].answer.set_result(Done())
        await session.call(CancelJob(JOB), Done)

    async def main() -> None:
        session = FakedSession("127.0.0.1:1")
        await call(session)
        with pytest.raises(UsageError, match="event loop"):
            await asyncio.to_thread(asyncio.run, session.call(CancelJob(JOB), Done))

    asyncio.run(main())


def test_a_call_without_a_task_is_made_only_where_it_can_leave_at_once() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1")
        assert not session.call_nowait(GetStatus(), unheard)  # not connected
        await session.connection()
        peer = session.peers[0]
        peer.connection.has_room = False
        assert not session.call_nowait(GetStatus(), unheard)
        peer.connection.has_room = True
        heard: list[object] = []
        for _ in range(QUICK_CALLS_MAX):
            assert session.call_nowait(GetStatus(), heard.append)
        assert not session.call_nowait(GetStatus(), unheard)
        peer.quick[1](Done())
        assert heard == [Done()]
        assert session.call_nowait(GetStatus(), heard.append)
        await session.__aexit__()

        hasty = FakedSession("127.0.0.1:1", patience_s=1)  # a frozen peer would take it all
        await hasty.connection()
        assert not hasty.call_nowait(GetStatus(), unheard)

    asyncio.run(main())


def test_calls_without_a_task_that_fail_together_turn_to_the_next_peer_once() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
        await session.connection()
        heard: list[object] = []
        for _ in range(3):
            session.call_nowait(GetStatus(), heard.append)
        peer = session.peers[0]
        peer.quick[1](NotFound("an answer like any other"))
        assert session.address == peer.address
        for number in (2, 3):
            peer.quick[number](Unavailable("no quorum"))
        assert [type(error) for error in heard] == [NotFound, Unavailable, Unavailable]
        assert (session.address, peer.connection.state) == ("127.0.0.1:2", State.CLOSED)
        await session.__aexit__()

    asyncio.run(main())


def test_a_call_without_a_task_that_nobody_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.01)

    async def main() -> None:
        session = FakedSession("127.0.0.1:1", "127.0.0.1:2")
        await session.connection()
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        session.call_nowait(GetStatus(), heard.set_result)
        error = await heard
        assert isinstance(error, Unavailable)
        assert "127.0.0.1:1 gives no answer" in str(error)
        assert (session.address, session.peers[0].quick) == ("127.0.0.1:2", {})

    asyncio.run(main())


def test_patience_that_was_spent_before_a_call_counts() -> None:
    async def main() -> None:
        session = FakedSession("127.0.0.1:1", patience_s=30)
        await session.connection()
        session.peers[0].answer.set_result(None)
        with pytest.raises(Unavailable, match="is gone"):
            await session.call(ListJobs(), Done, spent_s=30)

    asyncio.run(main())


SUBMIT = Submit(JOB, JobSpec("x", TaskSet.of(0, 1), ProgramWork(("true",))))


async def busy_session(
    busy: int, retry_after_s: float, *, patience_s: float = 30.0
) -> FakedSession:
    session = FakedSession("127.0.0.1:1", "127.0.0.1:2", patience_s=patience_s)
    await session.connection()
    (peer,) = session.peers
    peer.busy, peer.retry_after_s = busy, retry_after_s
    peer.answer.set_result(JobAccepted(JOB, duplicate=False))
    return session


def test_a_busy_peer_is_asked_again_on_the_same_connection_and_not_before_its_time() -> None:
    async def main() -> None:
        session = await busy_session(3, 0.02)
        began_s = asyncio.get_running_loop().time()
        await session.call(SUBMIT, JobAccepted)
        assert asyncio.get_running_loop().time() - began_s >= 3 * 0.02
        (peer,) = session.peers
        assert len(peer.asked) == 4
        assert peer.connection.state is State.OPEN

    asyncio.run(main())


def test_what_brings_work_waits_with_those_that_were_refused_and_what_reads_does_not() -> None:
    async def main() -> None:
        session = await busy_session(1, 10.0)
        async with asyncio.TaskGroup() as group:
            refused = group.create_task(session.call(SUBMIT, JobAccepted))
            await turns()
            (peer,) = session.peers
            later = group.create_task(session.call(SUBMIT, JobAccepted))
            await turns()
            assert peer.asked == [SUBMIT]
            assert not session.call_nowait(SUBMIT, unheard)
            reading = group.create_task(session.call(GetStatus(), JobAccepted))
            await turns()
            assert reading.done()
            refused.cancel()
            later.cancel()

    asyncio.run(main())


def test_a_call_without_a_task_that_is_told_busy_keeps_its_connection() -> None:
    async def main() -> None:
        session = await busy_session(0, 0.0)
        (peer,) = session.peers
        heard: list[object] = []
        assert session.call_nowait(SUBMIT, heard.append)
        peer.quick.popitem()[1](busy := Busy("busy: ask again", retry_after_s=60.0))
        assert heard == [busy]
        assert peer.connection.state is State.OPEN
        assert not session.call_nowait(SUBMIT, unheard)

    asyncio.run(main())


def test_a_busy_peer_is_not_waited_for_beyond_the_patience() -> None:
    async def main() -> None:
        session = await busy_session(1, 60.0, patience_s=1.0)
        with pytest.raises(Busy, match="ask again"):
            await session.call(SUBMIT, JobAccepted)

    asyncio.run(main())
