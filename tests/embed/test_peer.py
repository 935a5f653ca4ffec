"""A peer inside a program: it works, it fails by itself, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched import Client, Config, Peer
from p2psched.model.errors import (
    Damaged,
    P2PSchedError,
    Refused,
    Unavailable,
    UsageError,
)
from p2psched.model.job import JobState
from p2psched.peer.process import loop_factory
from p2psched.run.pool import WorkerPool
from tests.cluster import LiveCluster
from tests.embed.rig import PATIENCE_S, Trace, config, double, fail, three_peers, trace, until

pytestmark = pytest.mark.process


@pytest.fixture
def clean() -> Trace:
    """What is there before any peer. uvloop's first loop makes a pipe that the process keeps."""
    loop_factory()().close()
    return trace()


# --- work -----------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_submitted_call_gives_its_value_or_raises_its_exception(tmp_path: Path) -> None:
    async def main() -> None:
        async with Peer(config(tmp_path, "a")) as peer:
            assert peer.founded
            assert await peer.submit(double, 21) == 42
            assert await peer.submit(sorted, [2, 1], reverse=True) == [2, 1]
            with pytest.raises(KeyError, match="lost"):
                await peer.submit(fail, "lost")

    asyncio.run(main())


def test_three_peers_in_one_process_vote_and_run_each_others_tasks(tmp_path: Path) -> None:
    async def main() -> None:
        async with three_peers(tmp_path) as peers:
            assert len({peer.id for peer in peers}) == 3
            jobs = [await peer.client.map(double, range(20)) for peer in peers]
            for job in jobs:
                assert await job.results() == [2 * number for number in range(20)]
            statuses = [await peer.status() for peer in peers]
            assert all(status.quorum for status in statuses)
            assert len({status.leader for status in statuses}) == 1

    asyncio.run(main())


def test_a_peer_votes_only_as_the_founder_unless_it_is_told_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Peer(config(tmp_path, "a")) as a,
            Peer(config(tmp_path, "b", a)) as b,
            Peer(config(tmp_path, "c", a, votes=False)) as c,
            Peer(config(tmp_path, "d", a, votes=True)),
            Peer(config(tmp_path, "e", a, votes=True)),
        ):

            async def three_vote() -> bool:
                views = await a.client.peers()
                return sum(view.role != "learner" for view in views) == 3

            # With the founder that takes both of those that want to.
            await until(three_vote)
            assert [await p.submit(double, 1) for p in (b, c)] == [2, 2]
            views = await a.client.peers()
        assert {v.info.name for v in views if v.role == "learner"} == {"b", "c"}

    asyncio.run(main())


def test_callers_of_a_peer_that_stops_do_not_wait_until_its_workers_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    end = WorkerPool._end

    async def end_late(pool: WorkerPool) -> None:
        await asyncio.to_thread(released.wait, PATIENCE_S)
        await end(pool)

    monkeypatch.setattr(WorkerPool, "_end", end_late)

    async def main() -> None:
        running = contextlib.AsyncExitStack()
        peer = await running.enter_async_context(Peer(config(tmp_path, "a")))
        async with (
            Client(peer.address, runtime_dir=tmp_path / "runtime") as caller,
            asyncio.TaskGroup() as group,
        ):
            connection = (await caller.session.connection()).connection
            stopping = group.create_task(running.aclose())
            async with asyncio.timeout(PATIENCE_S):
                await connection.wait_closed()
            assert not released.is_set()
            assert not stopping.done()
            released.set()

    asyncio.run(main())


def test_a_peer_comes_back_on_its_folder_without_being_told_whom_to_join(tmp_path: Path) -> None:
    async def main() -> None:
        async with Peer(config(tmp_path, "a")) as a:
            async with Peer(config(tmp_path, "b", a)) as b:
                first = b.id
                job = await b.client.map(double, [3])
                assert await job.results() == [6]
            async with Peer(config(tmp_path, "b")) as b:
                assert (b.id, b.founded) == (first, False)
                assert (await b.status()).info.incarnation == 2
                assert await (await b.client.job(job.id)).results() == [6]

    asyncio.run(main())


def test_the_command_line_finds_an_embedded_peer_and_its_program_outlives_a_stop(
    tmp_path: Path,
) -> None:
    async def main(live: LiveCluster) -> None:
        async with Peer(config(tmp_path, "a")) as peer:
            shown = await asyncio.to_thread(live.ok, "peers")
            assert peer.address in shown
            stopped = await asyncio.to_thread(live.ok, "stop", "a")
            assert stopped.startswith("stopped peer a at ")
            error = await peer.failed()
            assert isinstance(error, Unavailable)
            assert "told to stop from outside" in str(error)
            with pytest.raises(Unavailable, match="has ended"):
                await peer.status()

    with LiveCluster(tmp_path) as live:
        asyncio.run(main(live))


# --- nothing is left ------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_peer_leaves_no_thread_child_or_file_and_changes_nothing_of_its_host(
    tmp_path: Path, clean: Trace
) -> None:
    async def main() -> None:
        before = trace()
        async with Peer(config(tmp_path, "a")) as peer:
            assert await peer.submit(double, 1) == 2
            assert await (await peer.client.submit_program(["true"])).wait()
            inside = trace()
        assert trace() == before
        # While it lives it has threads, children and files, and nothing else is changed either.
        assert inside.threads > before.threads
        assert inside.children
        as_before = dataclasses.replace(
            inside, threads=before.threads, children=before.children, files=before.files
        )
        assert as_before == before

    asyncio.run(main())
    assert trace() == clean
    assert list((tmp_path / "runtime").iterdir()) == []


def test_tasks_that_run_and_don_t_want_to_end_are_ended_with_the_peer(
    tmp_path: Path, clean: Trace
) -> None:
    stubborn = f"trap '' TERM; touch {tmp_path}/started; while :; do sleep 1; done"

    async def main() -> None:
        async with Peer(config(tmp_path, "a")) as peer:
            job = await peer.client.submit_program(["sh", "-c", stubborn])

            async def runs() -> bool:
                return (tmp_path / "started").exists()

            await until(runs)
        async with Peer(config(tmp_path, "a", slots=0)) as peer:  # given back, not lost
            view = await (await peer.client.job(job.id)).show()
            assert (view.state, view.waiting) == (JobState.RUNNING, 1)

    asyncio.run(main())
    assert trace() == clean


def test_a_peer_that_has_lost_the_others_still_works_for_its_host_and_ends(
    tmp_path: Path, clean: Trace
) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as others:
            founder = await others.enter_async_context(Peer(config(tmp_path, "a")))
            async with Peer(config(tmp_path, "b", founder), patience_s=0.5) as peer:
                assert await peer.submit(double, 2) == 4
                await others.aclose()

                async def is_alone() -> bool:
                    return not (await peer.status()).quorum

                await until(is_alone)
                with pytest.raises(Unavailable):
                    await peer.submit(double, 2)

    asyncio.run(main())
    assert trace() == clean


# --- a start that fails ---------------------------------------------------------------------------


def _taken_port(folder: Path, stack: contextlib.ExitStack) -> Config:
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return config(folder, "a", listen=f"127.0.0.1:{taken.getsockname()[1]}")


def _foreign_folder(folder: Path, stack: contextlib.ExitStack) -> Config:
    (folder / "a").mkdir()
    (folder / "a" / "thesis.txt").touch()
    return config(folder, "a")


def _folder_that_is_a_file(folder: Path, stack: contextlib.ExitStack) -> Config:
    (folder / "a").touch()
    return config(folder, "a")


def _no_interpreter(folder: Path, stack: contextlib.ExitStack) -> Config:
    return config(folder, "a", python="/nowhere/python")


def _other_program(folder: Path, stack: contextlib.ExitStack) -> Config:
    return config(folder, "a", python="/bin/true")


def _voteless_founder(folder: Path, stack: contextlib.ExitStack) -> Config:
    return config(folder, "a", votes=False)


def _open_to_others(folder: Path, stack: contextlib.ExitStack) -> Config:
    return config(folder, "a", listen="0.0.0.0:0")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (_taken_port, Refused, "in use by another process"),
        (_foreign_folder, Refused, "holds other files"),
        (_folder_that_is_a_file, Refused, "data folder"),
        (_no_interpreter, UsageError, "can't be started"),
        (_other_program, UsageError, "could not start workers"),
        (_voteless_founder, UsageError, "has to vote"),
        (_open_to_others, Refused, "not encrypted"),
    ],
)
def test_a_start_that_fails_raises_and_leaves_nothing(
    make: Callable[[Path, contextlib.ExitStack], Config],
    error: type[P2PSchedError],
    message: str,
    tmp_path: Path,
    clean: Trace,
) -> None:
    with contextlib.ExitStack() as stack:
        given = make(tmp_path, stack)
        before = trace()

        async def main() -> None:
            with pytest.raises(error, match=message):
                async with Peer(given):
                    raise AssertionError("it started")

        asyncio.run(main())
        assert trace() == before
    assert trace() == clean


def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path, clean: Trace) -> None:
    """A restarted peer waits for a majority of its voters, and they may never come."""

    async def main() -> None:
        async with Peer(config(tmp_path, "a")) as founder, Peer(config(tmp_path, "b", founder)):
            pass
        waiting = Peer(config(tmp_path, "b"))

        async def listens() -> bool:
            return any((tmp_path / "runtime").iterdir())

        async with asyncio.TaskGroup() as group:
            entering = group.create_task(waiting.__aenter__())
            await until(listens)
            assert not entering.done()
            entering.cancel()
        assert entering.cancelled()

    asyncio.run(main())
    assert trace() == clean


def test_a_peer_is_entered_once_and_asked_only_inside(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer(config(tmp_path, "a", slots=0))
        with pytest.raises(UsageError, match="async with"):
            _ = peer.address
        async with peer:
            with pytest.raises(UsageError, match="entered once"):
                await peer.__aenter__()

    asyncio.run(main())


# --- a peer that fails ----------------------------------------------------------------------------


def break_disk(folder: Path) -> None:
    """From now on each write to the log fails, as on a disk that is gone."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            path = entry.readlink()
            if path.is_relative_to(folder) and path.suffix == ".seg":
                unwritable = os.open(path, os.O_RDONLY)
                os.dup2(unwritable, int(entry.name), inheritable=False)
                os.close(unwritable)


def test_a_peer_that_fails_tells_its_host_and_the_host_goes_on(
    tmp_path: Path, clean: Trace, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            Peer(config(tmp_path, "a")) as healthy,
            Peer(config(tmp_path, "b", healthy), patience_s=5.0) as peer,
        ):
            break_disk(tmp_path / "b")
            await healthy.submit(double, 1)  # something that `b` has to write
            error = await peer.failed()
            assert isinstance(error, Damaged)
            assert "repair the disk" in str(error)
            assert await peer.submit(double, 4) == 8  # its client has turned to the other

    asyncio.run(main())
    assert trace() == clean
    assert list((tmp_path / "runtime").iterdir()) == []


def test_a_failure_that_nobody_asked_for_is_raised_at_the_end(tmp_path: Path, clean: Trace) -> None:
    async def main() -> None:
        async with Peer(config(tmp_path, "a", slots=0), patience_s=0.5) as peer:
            break_disk(tmp_path / "a")
            with contextlib.suppress(Unavailable):
                await peer.client.submit(double, 1)

    with pytest.raises(Damaged, match="repair the disk"):
        asyncio.run(main())
    assert trace() == clean


def test_the_error_of_the_block_goes_before_that_of_the_peer(tmp_path: Path) -> None:
    async def main() -> None:
        async with Peer(config(tmp_path, "a", slots=0), patience_s=0.5) as peer:
            break_disk(tmp_path / "a")
            await peer.client.submit(double, 1)

    with pytest.raises(Unavailable):
        asyncio.run(main())
