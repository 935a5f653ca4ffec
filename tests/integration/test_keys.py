"""Keys between real processes: races, watches over a killed leader, leases of the dead, histories,
and the page about them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.keys import Change, Entry, Keys, holds, put
from p2psched.model.errors import Conflict, TooOld
from p2psched.testing.linear_models import Registers
from p2psched.testing.linearizable import History, Operation, check
from tests.cluster import LiveCluster
from tests.integration.callers import Clients, KeyCaller, answered, word
from tests.integration.rig import Rig, over_a_killed_leader, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "keys.md"
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
UPDATERS: Final = 6
ADDS: Final = 10  # by each of them
CLIENTS: Final = 6
NAMES: Final = ("x", "y")
ANSWERS: Final = 400
HOLDER: Final = """
import asyncio, sys
from p2psched import Client

async def main():
    async with Client(sys.argv[1]) as client:
        lease = await client.lease("2s")
        for key in sys.argv[2:]:
            await client.kv.put(key, "here", lease=lease)
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.smoke
def test_of_two_clients_one_wins_and_the_other_learns_what_is_there(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client("a") as one, rig.client("b") as two:
            version = await one.kv.put("race", "start")

            async def swap(kv: Keys, value: str) -> int | Conflict:
                try:
                    return await kv.cas("race", version, value)
                except Conflict as conflict:
                    return conflict

            async with asyncio.TaskGroup() as group:
                first = group.create_task(swap(one.kv, "one"))
                second = group.create_task(swap(two.kv, "two"))
            won = next(task.result() for task in (first, second) if type(task.result()) is int)
            lost = next(
                task.result() for task in (first, second) if type(task.result()) is Conflict
            )
            assert isinstance(lost, Conflict)
            assert isinstance(lost.current, Entry)
            assert lost.current.version == won
            assert lost.current == await one.kv.get("race")

            seen: list[object] = []

            def append(value: object) -> object:
                seen.append(value)
                return f"{value}+"

            assert (await two.kv.update("race", append)).value == f"{lost.current.value}+"
            assert seen == [lost.current.value]

    asyncio.run(story())


def test_a_change_under_a_token_that_is_not_the_newest_is_refused(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client("a") as first, rig.client("b") as second:
            async with first.lock("guard") as lock:
                old = lock.token
                assert (await first.kv.txn([holds("guard", old)], [put("guarded", 1)])).held
            async with second.lock("guard") as lock:
                assert not await first.kv.txn([holds("guard", old)], [put("guarded", 2)])
                assert await first.kv.txn([holds("guard", lock.token)], [put("guarded", 3)])
            entry = await second.kv.get("guarded")
            assert entry is not None
            assert entry.value == 3

    asyncio.run(story())


def test_many_who_update_at_once_lose_nothing_of_each_other(rig: Rig) -> None:
    async def add(name: str) -> None:
        async with rig.client(name) as client:
            for _ in range(ADDS):
                await client.kv.update("count", _plus_one)

    async def story() -> object:
        async with asyncio.TaskGroup() as group:
            for number in range(UPDATERS):
                group.create_task(add("abc"[number % 3]))
        async with rig.client() as client:
            entry = await client.kv.get("count")
            return entry.value if entry is not None else None

    assert asyncio.run(story()) == UPDATERS * ADDS


def _plus_one(value: object) -> int:
    return (value if isinstance(value, int) else 0) + 1


def test_a_watch_has_no_gap_and_no_double_when_its_leader_is_killed(rig: Rig) -> None:
    """Through the peer that is killed, and through another one."""

    async def story() -> None:
        leader = await rig.leader()
        follower = next(name for name in "abc" if name != leader)
        written: list[int] = []
        told: dict[str, list[Change]] = {leader: [], follower: []}
        stop = asyncio.Event()
        async with rig.client(follower) as client:
            begin = (await client.kv.range("watched/")).version

            async def write() -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    written.append(await client.kv.put(f"watched/{number % 7}", number))
                    await client.kv.put(f"other/{number % 7}", number)
                await client.kv.put("watched/end", None)

            async def watch(name: str) -> None:
                async with rig.client(name) as watching:
                    async for change in watching.kv.watch("watched/", from_version=begin):
                        if change.key == "watched/end":
                            return
                        told[name].append(change)

            async with asyncio.TaskGroup() as group:
                for name in told:
                    group.create_task(watch(name))
                group.create_task(write())
                await until(lambda: min(map(len, told.values())) > 50)
                rig.cluster.kill(leader)
                count = len(written)
                await until(lambda: min(map(len, told.values())) > count + 50)
                rig.cluster.restart(leader)
                stop.set()
        for changes in told.values():
            assert [change.version for change in changes] == written
            assert [change.value for change in changes] == list(range(1, len(written) + 1))

    asyncio.run(story())


def test_the_keys_of_a_killed_client_go_with_its_lease(rig: Rig) -> None:
    address = rig.cluster.peers["b"].address
    secret = str(rig.cluster.secret_path)
    names = [f"alive/{number}" for number in range(3)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, address, *names],
        stdout=subprocess.PIPE,
        text=True,
        env={
            "PYTHONPATH": str(PAGE.parents[1]),
            "P2PSCHED_SECRET_FILE": secret,
            "P2PSCHED_RUNTIME_DIR": str(rig.cluster.runtime_dir),
        },
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        async def story() -> None:
            async with rig.client("a") as client:
                begin = (await client.kv.range("alive/")).version
                await until(lambda: _renewed(client, begin))
                assert len(await client.kv.range("alive/")) == 3
                holder.kill()
                found = []
                async for change in client.kv.watch("alive/", from_version=begin):
                    found.append(change)
                    if len(found) == 3:
                        break
                assert [change.key for change in found] == names
                assert all(change.deleted for change in found)
                assert len({change.version for change in found}) == 1, "all at once"

        asyncio.run(story())
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]  # it is a pipe


async def _renewed(client: Client, version: int) -> bool:
    """The ledger has seen commands since: only the holder says any."""
    return (await client.kv.range("alive/")).version >= version + 3


def test_followers_answer_for_keys(live: LiveCluster) -> None:
    for name in "abc":
        live.start(name, slots=0)
    live.start("f", slots=1, options=["--follow"])

    async def story() -> None:
        async with live.client("f") as client, live.client("a") as other:
            await until(lambda: _is_following(other))
            version = await client.kv.put("k", [1, "two"])
            assert (await client.kv.range()).entries == [Entry("k", [1, "two"], version, version)]
            await other.kv.delete("k")
            assert await client.kv.get("k") is None
            async for change in client.kv.watch(from_version=version):
                assert change.deleted
                break

    asyncio.run(story())


async def _is_following(client: Client) -> bool:
    return any(view.role == "follower" and view.state == "alive" for view in await client.peers())


def test_a_watch_of_what_is_gone_says_from_where_on_it_can_go(live: LiveCluster) -> None:
    peer = live.start("a")

    async def write(first: int) -> None:
        async with live.client() as client:
            for number in range(first, first + 12):
                await client.kv.put("k", bytes(200_000))
                await client.kv.put("n", number)

    async def story() -> None:
        async with live.client() as client:
            with pytest.raises(TooOld, match="read a range") as gone:
                async for _ in client.kv.watch(from_version=0):
                    pass
            found = [
                change.value
                async for change in _up_to(client, "n", 99, from_version=gone.value.oldest)
            ]
            assert found == list(range(100 - len(found), 100))
            assert len(found) >= 12

    for first in (40, 52, 64, 76):
        asyncio.run(write(first))
        live.ok("ledger", "compact", "--peer", peer.address)
    asyncio.run(write(88))
    asyncio.run(story())


async def _up_to(
    client: Client, key: str, last: int, *, from_version: int
) -> AsyncIterator[Change]:
    """Changes of one key, up to this value."""
    async for change in client.kv.watch(key, from_version=from_version):
        yield change
        if change.value == last:
            return


def test_the_examples_of_the_page_run(rig: Rig, tmp_path: Path) -> None:
    first, *others = BLOCKS
    lines = first.splitlines()
    lines += [f"    {line}" for block in others for line in block.splitlines()]
    script = tmp_path / "page.py"
    script.write_text(
        "import asyncio\nfrom p2psched import Client\n\nasync def main():\n"
        + "".join(f"    {line}\n" for line in lines)
        + "\nasyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={
            "PYTHONPATH": str(PAGE.parents[1]),
            "P2PSCHED_RUNTIME_DIR": str(rig.cluster.runtime_dir),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "green" in done.stdout


# --- histories ------------------------------------------------------------------------------------


async def _record(rig: Rig) -> History:
    """Clients at work, and their leader killed in the midst of it."""
    history = History()
    async with rig.client() as client:
        for key in NAMES:
            await client.kv.delete(key)

    async def work(number: int, stop: asyncio.Event) -> None:
        async with rig.client("abc"[number % 3]) as client:
            clients = Clients(patient=client, hasty=client)
            await KeyCaller(f"client {number}", history, clients, list(NAMES)).work(stop)

    await over_a_killed_leader(rig, work, lambda: answered(history), CLIENTS, ANSWERS)
    return history


@pytest.mark.smoke
def test_what_clients_saw_while_their_leader_died_has_an_order_that_explains_it(rig: Rig) -> None:
    """With the patience of real clients: what they repeat acts once, or this has no order."""
    history = asyncio.run(_record(rig))
    result = check(history.operations, Registers())
    assert result.ok, result.explain()
    swaps = [op for op in history.operations if word(op) == "swap"]
    assert {op.answer for op in swaps} >= {True, False}

    def noticed(lost: Operation) -> bool:
        lost.answer = True
        broken = check(history.operations, Registers()).broken
        lost.answer = False
        return broken is not None

    # Had one that lost its race been told that it won, it would be noticed; not each, for somebody
    # may have deleted the key in between.
    assert any(noticed(op) for op in swaps if op.answer is False)
