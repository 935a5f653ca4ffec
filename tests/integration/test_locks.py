"""Locks between real processes: who is next, who is told, and what a stale holder can't do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.locks import Lock
from p2psched.model.errors import Deadlock, LockLost, TimedOut, UsageError
from p2psched.model.lease_actions import EndLease, LeaseOver
from tests.integration.rig import Rig, gone, until

pytestmark = pytest.mark.process

COMMAND: Final = (sys.executable, "-m", "p2psched", "lock")
TTL: Final = "2s"


class Guard:
    """A resource that takes nothing from who comes with an older token than the newest it saw."""

    def __init__(self) -> None:
        self.newest = 0
        self.written: list[str] = []

    def write(self, token: int, text: str) -> bool:
        if token < self.newest:
            return False
        self.newest = token
        self.written.append(text)
        return True


@contextmanager
def lock_run(
    rig: Rig, name: str, script: str, *options: str, me: str = "1"
) -> Iterator[subprocess.Popen[bytes]]:
    """`p2psched lock run` of a shell script, which finds the folder of the rig in `$1`."""
    words = [*COMMAND, "run", *options, name, "--", "sh", "-c", script, me, str(rig.folder)]
    with subprocess.Popen(words, env=environ(rig), stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


def environ(rig: Rig) -> dict[str, str]:
    return {**os.environ, "P2PSCHED_RUNTIME_DIR": str(rig.cluster.runtime_dir)}


def lock_command(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env=environ(rig), capture_output=True, text=True, check=False
    )


async def waiting(client: Client, name: str) -> int:
    """How many wait for a lock."""
    return sum(view.waiting_count for view in await client.locks(name))


async def wait_waiting(client: Client, name: str, count: int) -> None:
    async def as_many() -> bool:
        return await waiting(client, name) == count

    await until(as_many)


async def end_lease(client: Client, lock: Lock) -> None:
    """Of another client's lock: as if it had been cut off for as long as the lease lasts."""
    assert lock.lease
    await client.session.acting.act(EndLease(lock.lease), LeaseOver)


async def free(client: Client, name: str) -> bool:
    return not await client.locks(name)


@pytest.mark.smoke
def test_only_one_holds_it_and_the_others_have_their_turns_in_order(rig: Rig) -> None:
    order: list[int] = []
    inside: list[int] = []
    tokens: list[int] = []

    async def story() -> None:
        async with rig.client("a") as one, rig.client("b") as two:

            async def section(client: Client, number: int) -> None:
                async with client.lock("turns") as lock:
                    inside.append(number)
                    assert inside == [number]
                    order.append(number)
                    tokens.append(lock.token)
                    await asyncio.sleep(0)
                    inside.clear()

            async with asyncio.TaskGroup() as group, one.lock("turns"):
                for number in range(6):
                    group.create_task(section((one, two)[number % 2], number))
                    await wait_waiting(one, "turns", number + 1)

    asyncio.run(story())
    assert order == list(range(6))
    assert tokens == sorted(set(tokens))


@pytest.mark.smoke
def test_a_killed_holder_is_followed_by_the_next_alone_within_its_lease(rig: Rig) -> None:
    async def story() -> None:
        begun = rig.folder / "begun"
        async with rig.client("b") as client:
            with lock_run(rig, "killed", 'touch "$1/begun"; sleep 60', "--ttl", TTL) as holder:
                await until(begun.exists)
                got: list[int] = []

                async def next_one(number: int) -> None:
                    async with client.lock("killed", ttl=TTL):
                        got.append(number)
                        await done.wait()

                done = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(next_one(number))
                        await wait_waiting(client, "killed", number + 1)
                    holder.kill()
                    took_s = await until(lambda: bool(got))
                    assert await waiting(client, "killed") == 2, "nobody else was given it"
                    assert got == [0]
                    done.set()
                assert got == [0, 1, 2]
                print(f"passed on {took_s:.1f} s after its holder was killed")

    asyncio.run(story())


def test_a_leader_that_is_killed_costs_nobody_the_lock_nor_the_place_in_the_row(rig: Rig) -> None:
    async def story() -> None:
        leader = await rig.leader()
        other = await rig.follower()
        order: list[int] = []
        async with rig.client(other) as client, rig.client(leader) as unlucky:
            async with unlucky.lock("led", ttl="20s") as held, asyncio.TaskGroup() as group:

                async def section(of: Client, number: int) -> None:
                    async with of.lock("led", ttl="20s"):
                        order.append(number)

                for number in range(4):
                    group.create_task(section((client, unlucky)[number % 2], number))
                    await wait_waiting(client, "led", number + 1)
                rig.cluster.kill(leader)
                await until(lambda: _has_leader(rig, leader))
                assert not held.lost.is_set()
                assert await waiting(client, "led") == 4
                await held.release()
            assert order == [0, 1, 2, 3]
        await rig.heal()

    async def _has_leader(rig: Rig, old: str) -> bool:
        return await rig.leader() != old

    asyncio.run(story())


@pytest.mark.smoke
def test_takers_in_opposite_order_are_found_and_one_is_told(rig: Rig) -> None:
    told: list[str] = []
    done: list[str] = []

    async def story() -> None:
        async with rig.client("a") as one, rig.client("c") as two:
            both = asyncio.Barrier(2)

            async def taker(client: Client, first: str, second: str) -> None:
                try:
                    async with client.lock(first):
                        await both.wait()
                        async with client.lock(second):
                            pass
                except Deadlock as error:
                    told.append(str(error))
                else:
                    done.append(first)

            async with asyncio.TaskGroup() as group:
                group.create_task(taker(one, "left", "right"))
                group.create_task(taker(two, "right", "left"))
            assert await free(one, "left")
            assert await free(one, "right")

    asyncio.run(story())
    assert len(told) == len(done) == 1
    assert "waits for left, which" in told[0]
    assert "waits for right, which" in told[0]


def test_what_runs_inside_a_command_is_one_with_it(rig: Rig) -> None:
    """Two commands, each under a lock, and each with another inside that wants the other's."""
    words = " ".join(COMMAND)
    wait = 'touch "$1/in-$0"; while [ ! -e "$1/both" ]; do sleep 0.05; done; '

    async def story() -> None:
        with (
            lock_run(rig, "outer-1", f"{wait} {words} run outer-2 -- true") as first,
            lock_run(rig, "outer-2", f"{wait} {words} run outer-1 -- true", me="2") as second,
        ):
            await until(lambda: all((rig.folder / f"in-{me}").exists() for me in ("1", "2")))
            (rig.folder / "both").touch()
            await until(lambda: None not in (first.poll(), second.poll()))
            assert sorted([first.returncode, second.returncode]) == [0, Deadlock.exit_code]

    asyncio.run(story())


def test_of_a_counted_lock_never_more_hold_than_the_count(rig: Rig) -> None:
    most = 0

    async def story() -> None:
        nonlocal most
        inside = 0
        async with rig.client("a") as one, rig.client("b") as two:

            async def section(client: Client) -> None:
                nonlocal inside, most
                async with client.lock("license:3"):
                    inside += 1
                    most = max(most, inside)
                    await two.locks("license")
                    inside -= 1

            async with asyncio.TaskGroup() as group:
                for number in range(12):
                    group.create_task(section((one, two)[number % 2]))
            async with one.lock("license:3"):
                with pytest.raises(UsageError, match="in use with capacity 3, not 1"):
                    await two.lock("license").acquire()

    asyncio.run(story())
    assert most == 3


def test_readers_are_together_and_a_writer_is_alone(rig: Rig) -> None:
    order: list[str] = []

    async def story() -> None:
        async with rig.client("a") as one, rig.client("b") as two, asyncio.TaskGroup() as group:
            leave = {who: asyncio.Event() for who in ("first", "second", "writer", "late")}

            async def take(client: Client, who: str) -> None:
                async with client.lock("page", shared=who != "writer"):
                    order.append(who)
                    await leave[who].wait()

            group.create_task(take(one, "first"))
            group.create_task(take(two, "second"))
            await until(lambda: sorted(order) == ["first", "second"])
            with pytest.raises(TimedOut, match=r"lock page is held by .* and "):
                await two.lock("page", wait=False).acquire()
            for number, who in enumerate(("writer", "late")):
                group.create_task(take(two, who))
                await wait_waiting(one, "page", number + 1)
            leave["first"].set()
            leave["second"].set()
            await until(lambda: order[2:] == ["writer"])
            assert await waiting(one, "page") == 1, "who came later is not with the writer"
            leave["writer"].set()
            await until(lambda: order[3:] == ["late"])
            leave["late"].set()

    asyncio.run(story())


def test_a_block_whose_lock_is_lost_is_cancelled_and_says_so(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client("a") as one, rig.client("b") as two:
            lock = one.lock("lost", ttl=TTL)

            async def block() -> None:
                async with lock:
                    await end_lease(two, lock)
                    await asyncio.get_running_loop().create_future()

            with pytest.raises(LockLost, match="somebody else may hold it"):
                await block()
            assert lock.lost.is_set()
            async with two.lock("lost") as later:
                assert later.token > 0

    asyncio.run(story())


def test_a_command_is_ended_once_its_lock_is_lost_and_its_token_is_refused(rig: Rig) -> None:
    """Its `lock run` is frozen until its lease is over, and then goes on."""
    guard = Guard()

    async def story() -> None:
        script = 'echo $$ $P2P_FENCE > "$1/ran.new"; mv "$1/ran.new" "$1/ran"; exec sleep 60'
        with lock_run(rig, "frozen", script, "--ttl", TTL, "--grace", "200ms") as process:
            await until((rig.folder / "ran").exists)
            pid, token = map(int, (rig.folder / "ran").read_text().split())
            assert guard.write(token, "first")
            process.send_signal(signal.SIGSTOP)
            async with rig.client("b") as client, client.lock("frozen") as lock:
                assert guard.write(lock.token, "second")
                assert not guard.write(token, "late"), "the command runs on, and knows nothing"
            process.send_signal(signal.SIGCONT)
            await until(lambda: gone(pid))
            await until(lambda: process.poll() is not None)
        assert process.returncode == LockLost.exit_code

    asyncio.run(story())
    assert guard.written == ["first", "second"]


def test_a_command_that_is_cut_off_is_ended_before_anybody_else_has_its_lock(rig: Rig) -> None:
    """No peer answers its `lock run` any more."""

    async def story() -> None:
        script = 'echo $$ > "$1/cut.new"; mv "$1/cut.new" "$1/cut"; exec sleep 60'
        with lock_run(rig, "cut", script, "--ttl", TTL) as process:
            await until((rig.folder / "cut").exists)
            pid = int((rig.folder / "cut").read_text())
            for peer in rig.cluster.peers.values():
                peer.signal(signal.SIGSTOP)
            await until(lambda: gone(pid))
            for peer in rig.cluster.peers.values():
                peer.signal(signal.SIGCONT)
            await until(lambda: process.poll() is not None)
            assert process.returncode == LockLost.exit_code
        async with rig.client() as client, client.lock("cut"):
            pass
        await rig.heal()

    asyncio.run(story())


def test_the_command_line_takes_lists_and_lets_go(rig: Rig) -> None:
    taken = lock_command(rig, "acquire", "by-hand", "--ttl", "60s", "-o", "json")
    assert taken.returncode == 0, taken.stderr
    found = json.loads(taken.stdout)
    busy = lock_command(rig, "acquire", "by-hand", "--no-wait")
    assert busy.returncode == TimedOut.exit_code
    assert "lock by-hand is held by" in busy.stderr
    listed = json.loads(lock_command(rig, "list", "by-", "-o", "json").stdout)
    assert [(lock["name"], lock["held"]) for lock in listed["locks"]] == [("by-hand", 1)]
    assert listed["locks"][0]["holders"][0]["token"] == found["token"]
    assert "by-hand" in lock_command(rig, "list").stdout
    wrong = lock_command(rig, "release", "by-hand", "--token", str(found["token"] - 1))
    assert wrong.returncode == 2
    done = lock_command(rig, "release", "by-hand", found["claim"])
    assert (done.returncode, done.stdout) == (0, "released lock by-hand\n")
    again = lock_command(rig, "acquire", "by-hand", "-o", "quiet", "--ttl", "1s")
    token, claim = again.stdout.split()
    assert int(token) > found["token"]
    assert len(claim) == 32
    expired = lock_command(rig, "acquire", "by-hand", "--timeout", "30s", "-o", "quiet")
    assert int(expired.stdout.split()[0]) > int(token), "nobody renewed it"


def test_a_command_that_ends_passes_its_code_on_and_the_lock(rig: Rig) -> None:
    with lock_run(rig, "codes", "exit 37") as process:
        assert process.wait() == 37
    missing = lock_command(rig, "run", "codes", "--", "no-such-program")
    assert missing.returncode == 2
    assert "there is no program no-such-program" in missing.stderr

    async def story() -> None:
        async with rig.client() as client:
            assert await free(client, "codes")

    asyncio.run(story())
