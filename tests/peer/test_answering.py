"""A caller that asks for more chunks than it takes fills nobody's memory."""

from __future__ import annotations

import asyncio
from typing import cast

from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import ReadBlob
from p2psched.model.messages import Answer, AnswerBody, Call, CallBody, Done, Failure, GetStatus
from p2psched.net.link import Connection
from p2psched.peer.answering import CHUNKS_OUT_MAX, Answering
from tests.peer.blob_rig import until

REF = BlobRef(bytes(32), 2**30)


class SlowReader:
    """A connection that takes nothing until it may."""

    def __init__(self) -> None:
        self.takes = asyncio.Event()
        self.sent: list[Answer | Failure] = []

    def send_nowait(self, message: Failure) -> None:
        self.sent.append(message)

    async def send(self, message: Answer) -> None:
        if message.id < 1000:
            await self.takes.wait()
        self.sent.append(message)


async def _until_idle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_few_chunks_are_read_for_a_caller_that_does_not_take_them() -> None:
    asked: list[CallBody] = []

    async def answer(body: CallBody) -> AnswerBody:
        asked.append(body)
        return Done()

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            answering = Answering(group, answer)
            reader, other = SlowReader(), SlowReader()
            other.takes.set()
            for number in range(3 * CHUNKS_OUT_MAX):
                answering.on_call(cast("Connection", reader), Call(number, ReadBlob(REF, number)))
            await _until_idle()
            assert len(asked) == CHUNKS_OUT_MAX
            # Neither its other calls nor other callers wait for that.
            answering.on_call(cast("Connection", reader), Call(1000, GetStatus()))
            answering.on_call(cast("Connection", other), Call(1, ReadBlob(REF, 0)))
            await until(lambda: bool(reader.sent and other.sent))
            reader.takes.set()
            await until(lambda: len(reader.sent) == 3 * CHUNKS_OUT_MAX + 1)

    asyncio.run(story())


def test_what_a_lost_connection_asked_for_is_not_read_any_more() -> None:
    asked: list[CallBody] = []

    async def answer(body: CallBody) -> AnswerBody:
        asked.append(body)
        return Done()

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            answering = Answering(group, answer)
            reader = SlowReader()
            connection = cast("Connection", reader)
            for number in range(2 * CHUNKS_OUT_MAX):
                answering.on_call(connection, Call(number, ReadBlob(REF, number)))
            await _until_idle()
            answering.on_closed(connection)
        assert len(asked) == CHUNKS_OUT_MAX
        assert reader.sent == []

    asyncio.run(story())


def test_a_call_that_comes_while_the_peer_stops_is_refused() -> None:
    async def answer(body: CallBody) -> AnswerBody:
        raise AssertionError

    async def story() -> list[Answer | Failure]:
        reader = SlowReader()

        async def ends_late(answering: Answering) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                answering.on_call(cast("Connection", reader), Call(1, GetStatus()))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ends_late(Answering(group, answer)))
                await _until_idle()
                raise InterruptedError
        except* InterruptedError:
            pass
        return reader.sent

    (said,) = asyncio.run(story())
    assert isinstance(said, Failure)
    assert said.code == "unavailable"
