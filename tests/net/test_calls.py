"""Calls: many on one connection, each with its own answer."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from p2psched.model.errors import (
    Busy,
    NotFound,
    P2PSchedError,
    ProtocolError,
    Unavailable,
    UsageError,
)
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX, FRAME_BYTES_MAX
from p2psched.model.messages import (
    Answer,
    Call,
    Done,
    Failure,
    FindJob,
    GetStatus,
    JobAccepted,
    PeerMessage,
)
from p2psched.net.calls import CallClient
from p2psched.net.dial import connect
from p2psched.net.link import Connection, Handlers
from p2psched.net.server import Server
from tests.net.conftest import Run
from tests.net.wire import CLIENT, SECRET, B, Recorder, serving, until

NOTHING = Handlers(on_message=lambda _, __: None)


def unheard(answer: object) -> None:
    pytest.fail(f"nobody waits for {answer}")


class Desk:
    """Keeps calls until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Connection, Call]] = []
        self.handlers = Handlers(on_message=self.on_message)

    def on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        assert isinstance(message, Call)
        self.calls.append((connection, message))

    def answer(self, position: int, job: str) -> None:
        connection, call = self.calls[position]
        connection.send_nowait(Answer(id=call.id, body=JobAccepted(job=job, duplicate=False)))  # type: ignore[arg-type]  # any text tells the answers apart


async def client_of(server: Server) -> CallClient:
    return CallClient(
        await connect(server.address, identity=CLIENT, secret=SECRET, handlers=NOTHING)
    )


def test_answers_find_their_calls_in_any_order(run: Run) -> None:
    async def main() -> None:
        desk = Desk()
        async with serving(desk.handlers) as server:
            client = await client_of(server)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(client.call(FindJob(str(n)))) for n in range(20)]
                await until(lambda: len(desk.calls) == 20)
                assert client.open_count == 20
                for position, (_, call) in reversed(list(enumerate(desk.calls))):
                    assert isinstance(call.body, FindJob)
                    desk.answer(position, call.body.text)
            got = [task.result() for task in calls]
            assert [a.job for a in got if isinstance(a, JobAccepted)] == [str(n) for n in range(20)]
            assert client.open_count == 0
            await client.close()

    run(main())


def test_a_busy_peer_says_so(run: Run) -> None:
    def fail(connection: Connection, message: PeerMessage | Call) -> None:
        assert isinstance(message, Call)
        connection.send_nowait(Failure(message.id, Unavailable.code, "busy", 50, busy=True))

    async def main() -> None:
        async with serving(Handlers(on_message=fail)) as server:
            client = await client_of(server)
            with pytest.raises(Busy) as caught:
                await client.call(GetStatus())
            assert caught.value.retry_after_s == 0.05
            await client.close()

    run(main())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not-found", NotFound),
        ("usage", UsageError),
        ("unavailable", Unavailable),
        ("never heard of", P2PSchedError),
    ],
)
def test_a_failure_is_raised_as_the_error_it_stands_for(
    run: Run, code: str, kind: type[P2PSchedError]
) -> None:
    def fail(connection: Connection, message: PeerMessage | Call) -> None:
        assert isinstance(message, Call)
        connection.send_nowait(Failure(id=message.id, code=code, message="why", retry_after_ms=50))

    async def main() -> None:
        async with serving(Handlers(on_message=fail)) as server:
            client = await client_of(server)
            with pytest.raises(P2PSchedError, match="why") as caught:
                await client.call(GetStatus())
            assert type(caught.value) is kind
            if isinstance(caught.value, Unavailable):
                assert caught.value.retry_after_s == 0.05
            await client.close()

    run(main())


def test_a_cancelled_call_is_forgotten_and_its_late_answer_ignored(run: Run) -> None:
    async def main() -> None:
        desk = Desk()
        async with serving(desk.handlers) as server:
            client = await client_of(server)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.call(FindJob("first"))
            assert client.open_count == 0
            async with asyncio.TaskGroup() as group:
                second = group.create_task(client.call(FindJob("second")))
                await until(lambda: len(desk.calls) == 2)
                desk.answer(0, "late")
                desk.answer(0, "twice")
                desk.answer(1, "second")
            assert second.result() == JobAccepted(job="second", duplicate=False)  # type: ignore[arg-type]  # as above
            await client.close()

    run(main())


@pytest.mark.parametrize("end", ["server", "client", "abort"])
def test_open_calls_end_as_unavailable_when_the_connection_does(run: Run, end: str) -> None:
    async def main() -> None:
        desk = Desk()
        async with serving(desk.handlers) as server:
            client = await client_of(server)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(ended_as_unavailable(client)) for _ in range(3)]
                await until(lambda: len(desk.calls) == 3)
                if end == "server":
                    server.connections[0].close()
                elif end == "client":
                    await client.close()
                else:
                    client.connection.abort()
            assert all(task.result() for task in calls)
            with pytest.raises(Unavailable, match="closed"):
                await client.call(GetStatus())

    run(main())


async def ended_as_unavailable(client: CallClient) -> bool:
    try:
        await client.call(GetStatus())
    except Unavailable as error:
        return str(client.connection.address) in str(error)
    return False


def test_too_many_open_calls_are_refused_here_already(run: Run) -> None:
    async def main() -> None:
        desk = Desk()
        async with serving(desk.handlers) as server:
            client = await client_of(server)
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(client.call(GetStatus())) for _ in range(CALLS_IN_FLIGHT_MAX)
                ]
                await until(lambda: len(desk.calls) == CALLS_IN_FLIGHT_MAX)
                with pytest.raises(Unavailable, match="256"):
                    await client.call(GetStatus())
                for position in range(CALLS_IN_FLIGHT_MAX):
                    desk.answer(position, "x")
            assert len({id(task.result()) for task in calls}) == CALLS_IN_FLIGHT_MAX
            await client.close()

    run(main())


def test_a_call_that_fits_no_frame_is_a_usage_error_and_harms_nothing(run: Run) -> None:
    async def main() -> None:
        async with serving(Recorder().handlers) as server:
            client = await client_of(server)
            with pytest.raises(UsageError, match="split"):
                await client.call(FindJob("x" * FRAME_BYTES_MAX))
            assert await client.call(GetStatus()) == Done()
            assert client.open_count == 0
            await client.close()

    run(main())


def test_both_ends_may_call_over_one_connection(run: Run) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        async with serving(theirs.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=ours.handlers)
            await theirs.wait(lambda: bool(theirs.opened))
            back = CallClient(theirs.opened[0])
            assert await back.call(GetStatus()) == Done()
            assert await CallClient(link).call(GetStatus()) == Done()

    run(main())


def test_an_answer_of_the_wrong_shape_ends_the_connection(run: Run) -> None:
    def lie(connection: Connection, message: PeerMessage | Call) -> None:
        connection.send_frame_nowait(b"\x06\x00\x00\x00\x00\x93\x1f\x01\x91\x63")

    async def main() -> None:
        async with serving(Handlers(on_message=lie)) as server:
            client = await client_of(server)
            with pytest.raises(Unavailable, match="not a valid message"):
                await client.call(GetStatus())
            assert isinstance(client.connection.error, ProtocolError)

    run(main())


def test_a_call_without_a_task_hears_the_answer_the_error_or_the_end(run: Run) -> None:
    async def main() -> None:
        desk = Desk()
        async with serving(desk.handlers) as server:
            client = await client_of(server)
            heard: dict[str, object] = {}
            for name in ("answered", "refused", "lost"):
                client.call_nowait(FindJob(name), partial(heard.__setitem__, name))
            forgotten = client.call_nowait(FindJob("forgotten"), unheard)
            client.forget(forgotten)
            assert client.open_count == 3
            await until(lambda: len(desk.calls) == 4)
            connection, refused = desk.calls[1]
            connection.send_nowait(Failure(refused.id, NotFound.code, "no such job"))
            desk.answer(0, "a")
            desk.answer(3, "d")
            await until(lambda: len(heard) == 2)
            assert isinstance(heard["answered"], JobAccepted)
            assert isinstance(heard["refused"], NotFound)
            connection.abort()
            await until(lambda: len(heard) == 3)
            assert isinstance(heard["lost"], Unavailable)
            assert client.open_count == 0
            with pytest.raises(Unavailable):
                client.call_nowait(GetStatus(), unheard)
            assert client.open_count == 0

    run(main())


def test_a_call_without_a_task_that_fits_no_frame_is_not_open(run: Run) -> None:
    async def main() -> None:
        async with serving(Desk().handlers) as server:
            client = await client_of(server)
            with pytest.raises(UsageError, match="does not fit a frame"):
                client.call_nowait(FindJob("x" * FRAME_BYTES_MAX), unheard)
            assert client.open_count == 0

    run(main())
