"""Large results on real disks: two before they are told, made up for, never returned damaged."""

from __future__ import annotations

import asyncio
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.client.results import results_of
from p2psched.model.blob import BlobRef
from p2psched.model.commands import JobReopened, ResultsLost
from p2psched.model.errors import ResultLost, Unavailable
from p2psched.model.job import JobState
from p2psched.model.limits import MIB
from p2psched.model.taskset import TaskSet
from tests.integration import work
from tests.integration.disks import LEARNER, Disks, refs_of, running_disks
from tests.integration.rig import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]

SIZE: Final = 1 * MIB + 17  # three chunks
TASKS: Final = 8
READ_S: Final = 45.0  # a client's patience, and what a loaded machine takes


@pytest.fixture(scope="module")
def _shared_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    with running_disks(tmp_path_factory.mktemp("disks")) as disks:
        yield disks


@pytest.fixture
def disks(_shared_disks: Disks) -> Disks:
    asyncio.run(_shared_disks.heal())
    return _shared_disks


async def ended(client: Client, seed: int, tasks: int = TASKS) -> Job:
    """A job with large results, each on two live disks."""
    job = await client.map(work.noise, range(seed, seed + tasks), [SIZE] * tasks)
    assert (await job.wait()).state is JobState.SUCCEEDED
    return job


async def check_values(job: Job, seed: int, tasks: int = TASKS) -> None:
    assert await job.results() == [work.noise(seed + n, SIZE) for n in range(tasks)]


@pytest.mark.smoke
def test_a_large_result_is_on_two_disks_when_it_is_told(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            job = await client.map(work.noise, range(TASKS), [SIZE] * TASKS)
            told = 0
            async for page in job.pages():
                for segment in page.segments:
                    for result in results_of(job.id, segment):
                        (ref,) = result.value_refs
                        assert len(disks.holders(BlobRef(*ref))) >= 2, result
                        told += 1
            assert told == TASKS

    asyncio.run(story())


def test_the_death_of_a_holder_is_not_noticed_by_readers_and_made_up_for(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            job = await ended(client, 100)
            refs = await refs_of(job)
        victim = disks.holders(refs[0])[0]
        others = [name for name in disks.cluster.peers if name != victim]
        disks.cluster.kill(victim)
        async with disks.client(others[0]) as client, asyncio.timeout(READ_S):
            job = await client.job(job.id)
            await check_values(job, 100)
            await disks.wait_alive(*others)
            await disks.wait_copied(job)
        shown = disks.cluster.ok("job", "show", job.id, "-o", "json")
        assert '"short_of_copies":0' in shown.replace(" ", "")

    asyncio.run(story())


async def _kill_both_holders(disks: Disks, seed: int) -> tuple[str, int, list[str], list[str]]:
    """A job, one of its tasks, the holders of its result, who are dead, and the others."""
    async with disks.client() as client:
        job = await ended(client, seed)
        refs = await refs_of(job)
    index = next(n for n, ref in refs.items() if LEARNER in disks.holders(ref))
    holders = disks.holders(refs[index])
    assert len(holders) == 2
    others = [name for name in disks.cluster.peers if name not in holders]
    for name in holders:
        disks.cluster.kill(name)
    return job.id, index, holders, others


def test_a_result_whose_holders_are_down_says_so_and_comes_back_with_one(disks: Disks) -> None:
    async def story() -> None:
        job_id, index, holders, others = await _kill_both_holders(disks, 200)
        async with disks.client(others[0]) as client, asyncio.timeout(READ_S):
            with pytest.raises((ResultLost, Unavailable), match=r"start|did not answer|try again"):
                await (await client.job(job_id)).result(index)
            await disks.wait_alive(*others)
            with pytest.raises(ResultLost, match=r"start the peers that had it.*job retry"):
                await (await client.job(job_id)).result(index)
        disks.cluster.restart(holders[0])
        async with disks.client(others[0]) as client, asyncio.timeout(READ_S):
            job = await client.job(job_id)

            async def there_again() -> bool:
                try:
                    return await job.result(index) == work.noise(200 + index, SIZE)
                except (ResultLost, Unavailable):
                    return False

            await until(there_again)

    asyncio.run(story())


def test_a_result_whose_holders_are_down_is_computed_again_by_a_retry(disks: Disks) -> None:
    async def story() -> None:
        job_id, _, _, others = await _kill_both_holders(disks, 250)
        await disks.wait_alive(*others)
        async with disks.client(others[0]) as client, asyncio.timeout(READ_S):
            job = await client.job(job_id)
            await job.retry()
            assert (await job.wait()).state is JobState.SUCCEEDED
            await check_values(job, 250)
        await disks.heal()
        async with disks.client() as client:
            await check_values(await client.job(job_id), 250)

    asyncio.run(story())


def _damage(path: Path) -> None:
    """Flip one byte in the middle of the second chunk."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(SIZE * 3 // 4)
        (byte,) = file.read(1)
        file.seek(SIZE * 3 // 4)
        file.write(bytes([byte ^ 1]))


def test_a_damaged_copy_is_never_returned_set_aside_and_made_up_for(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            job = await ended(client, 300)
            ref = (await refs_of(job))[3]
            name, sound = disks.holders(ref)[0], work.noise(303, SIZE)
            _damage(disks.path(name, ref))
            async with disks.only(name) as session:
                assert await Job(session, job.id).result(3) == sound
            data = disks.cluster.peers[name].data
            assert (data / "blobs" / "damaged" / ref.digest.hex()).exists()

            async def sound_on_two_disks() -> bool:
                files = [disks.path(n, ref).read_bytes() for n in disks.holders(ref)]
                return [file.endswith(sound) for file in files] == [True, True]

            await until(sound_on_two_disks)
            await disks.wait_copied(job)

    asyncio.run(story())


@pytest.mark.parametrize(("harm", "seed"), [(_damage, 400), (Path.unlink, 450)])
def test_without_a_sound_copy_a_result_is_lost_and_computed_again(
    disks: Disks, harm: Callable[[Path], None], seed: int
) -> None:
    async def story() -> None:
        async with disks.client() as client, asyncio.timeout(90):
            job = await ended(client, seed)
            ref = (await refs_of(job))[5]
            for name in disks.holders(ref):
                harm(disks.path(name, ref))
            with pytest.raises(ResultLost, match="job retry"):
                await job.result(5)

            async def shown_as_lost() -> bool:
                return (await job.show()).lost == 1

            await until(shown_as_lost)
            assert "lost the last copy" in disks.cluster.ok("job", "show", job.id)
            disks.cluster.ok("job", "retry", job.id)
            assert (await job.wait()).state is JobState.SUCCEEDED
            await check_values(job, seed)
            view = await job.show()
            assert (view.lost, view.succeeded) == (0, TASKS)
            events = [stamped.event for stamped in (await job.history()).events]
            lost = [event.tasks for event in events if isinstance(event, ResultsLost)]
            again = [event.tasks for event in events if isinstance(event, JobReopened)]
            assert lost == again == [TaskSet.of(5, 6)]
            told = disks.cluster.ok("job", "history", job.id)
            assert "result lost" in told
            assert "run again" in told

    asyncio.run(story())


def test_a_damaged_argument_is_brought_anew_and_fails_no_task(disks: Disks) -> None:
    argument = work.noise(650, SIZE)

    async def story() -> None:
        async with disks.client() as client, asyncio.timeout(READ_S):
            assert set(await (await client.map(zlib.crc32, [argument] * 8)).results()) == {
                zlib.crc32(argument)
            }
            (ref,) = _blobs_of_size(disks, SIZE, argument)
            *harmed, _ = disks.holders(ref)
            for name in harmed:
                _damage(disks.path(name, ref))
            for _ in range(2):  # a sound copy, or the next one, is read by every peer
                job = await client.map(zlib.crc32, [argument] * 32)
                assert set(await job.results()) == {zlib.crc32(argument)}

    asyncio.run(story())


def _blobs_of_size(disks: Disks, least: int, content: bytes) -> set[BlobRef]:
    """Blobs that hold `content`, on any disk; a few bytes stand before it."""
    found = set()
    for peer in disks.cluster.peers.values():
        for path in (peer.data / "blobs").glob("[0-9a-f][0-9a-f]/*"):
            size = path.stat().st_size
            if least <= size <= least + 64 and content in path.read_bytes():
                found.add(BlobRef(bytes.fromhex(path.name), size))
    return found


def test_a_peer_whose_blobs_were_deleted_says_so_and_gets_copies_again(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            job = await ended(client, 500)
            refs = await refs_of(job)
        victim = disks.holders(refs[0])[0]
        held = sum(victim in disks.holders(ref) for ref in refs.values())
        disks.cluster.kill(victim)
        shutil.rmtree(disks.cluster.peers[victim].data / "blobs")
        disks.cluster.restart(victim)
        await disks.wait_alive(*disks.cluster.peers)
        async with disks.client() as client:
            await disks.wait_copied(await client.job(job.id))
            await check_values(await client.job(job.id), 500)
        assert held >= 1
        await until(lambda: "blobs-missing" in disks.cluster.peers[victim].log)

    asyncio.run(story())


def test_code_and_arguments_outlive_the_peer_that_took_them(disks: Disks) -> None:
    arguments = [work.noise(600 + n, SIZE) for n in range(6)]

    async def story() -> None:
        async with disks.client("c") as client:
            assert client.session.address == disks.cluster.peers["c"].address
            job = await client.map(bytes.__len__, arguments)
            disks.cluster.kill("c")
        async with disks.client("a") as client, asyncio.timeout(READ_S):
            assert await (await client.job(job.id)).results() == [SIZE] * 6

    asyncio.run(story())
