"""The client of Redis that the benchmarks use: what it writes and reads, against the real server
where there is one."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from bench.rivals.redis import PROGRAM, Redis, RedisError, decode, encode


def test_a_command_is_an_array_of_its_words() -> None:
    assert encode("SET", b"a b", 7) == b"*3\r\n$3\r\nSET\r\n$3\r\na b\r\n$1\r\n7\r\n"


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-3\r\n", -3),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", [b"a", [1]]),
    ],
)
def test_a_reply_is_read_once_it_is_whole(data: bytes, reply: object) -> None:
    for end in range(len(data)):
        assert decode(data[:end], 0) is None
    assert decode(data + b"+next\r\n", 0) == (reply, len(data))


def test_an_error_is_no_value() -> None:
    found = decode(b"-ERR no\r\n", 0)
    assert found is not None
    assert isinstance(found[0], RedisError)


@pytest.mark.process
@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="no redis-server here")
def test_many_commands_over_one_connection_are_answered_in_order() -> None:
    async def story() -> None:
        async with Redis() as redis:
            await redis.start()
            client = await redis.client()
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(client.call("INCR", "n")) for _ in range(100)]
            assert [task.result() for task in asked] == list(range(1, 101))
            with pytest.raises(RedisError, match="WRONGTYPE"):
                await client.call("LPUSH", "n", "x")
            assert await client.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]
            client.close()

    asyncio.run(story())
