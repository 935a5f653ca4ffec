"""The measures of the ledger beside etcd, on real processes and with few calls."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.cluster import running
from bench.measures import ledger
from bench.registry import Stage, Unsupported
from bench.rivals.etcd import Etcd, fields, metrics
from bench.rivals.redis import Redis

process = pytest.mark.process
needs_etcd = pytest.mark.skipif(
    shutil.which("etcd") is None, reason="needs etcd: apt-get install etcd-server"
)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    with ProcessPoolExecutor(1) as pool:
        async with (
            running((1, 0, 0)) as cluster,
            cluster.client() as client,
            Etcd(3) as etcd,
            Redis() as redis,
        ):
            yield Stage(cluster, client, pool, etcd, redis, kills=1)


def test_only_values_without_labels_are_read_from_a_page_of_metrics() -> None:
    page = '# HELP a x\n# TYPE a counter\na 3\nb{le="0.1"} 7\nc_count 1.5e+03\n\n'
    assert metrics(page) == {"a": 3.0, "c_count": 1500.0}


def test_numbers_and_bytes_are_read_from_a_message_of_protobuf() -> None:
    assert fields(bytes.fromhex("0a026869 10ac02")) == {1: b"hi", 2: 300}
    with pytest.raises(ValueError, match="kind 1"):
        fields(bytes.fromhex("090000000000000000"))


@needs_etcd
@process
def test_a_lock_of_etcd_is_held_by_one_at_a_time_and_goes_in_order() -> None:
    async def main() -> None:
        async with Etcd(1) as etcd:
            await etcd.start()
            client = await etcd.client(leader=True)
            keys = [await client.lock(b"lock", await client.lease(60))]
            lease = await client.lease(60)
            async with asyncio.TaskGroup() as group:
                second = group.create_task(client.lock(b"lock", lease))
                assert await client.lease(60) != lease  # a later call is answered before it
                assert not second.done()
                await client.unlock(keys[0])
            assert second.result() != keys[0]
            client.close()

    asyncio.run(main())


def test_without_etcd_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    async def main() -> None:
        async with Etcd(3) as etcd:
            with pytest.raises(Unsupported, match="apt-get install etcd-server"):
                await etcd.start()

    asyncio.run(main())


@process
def test_commits_of_ours_are_counted_and_looked_for_on_every_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "COUNTS", {1: 20, 8: 200})
    monkeypatch.setattr(ledger, "_JOBS", 8)

    async def main() -> None:
        async with stage() as here:
            for role in ("leader", "voter"):
                one = await ledger.commits(here, in_flight=1, role=role)
                assert one["syncs"] >= 2  # a majority of three for each
                eight = await ledger.commits(here, in_flight=8, role=role)
                assert 0 < eight["syncs"] < one["syncs"]
                assert (await ledger.reads(here, in_flight=8, role=role))["syncs"] < 0.5
            jobs = await ledger._ended_jobs(here)
            await ledger._check(here, jobs)
            missed = dict(jobs)
            missed[next(iter(missed))] ^= True
            with pytest.raises(AssertionError, match="peer 0 lacks commits"):
                await ledger._check(here, missed)

    asyncio.run(main())


@process
@needs_etcd
def test_puts_of_etcd_are_counted_on_every_member_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "COUNTS", {1: 20, 8: 200})

    async def main() -> None:
        async with stage() as here:
            for role in ("leader", "voter"):
                one = await ledger.etcd_commits(here, in_flight=1, role=role)
                assert one["syncs"] >= 2
                eight = await ledger.etcd_commits(here, in_flight=8, role=role)
                assert 0 < eight["syncs"] < one["syncs"]
                await ledger.etcd_reads(here, in_flight=8, role=role)
            etcd = here.etcd
            assert etcd.version
            assert set(await etcd.counts("read/")) == {8}
            assert set(await etcd.counts("nothing/")) == {0}
            client = await etcd.client(leader=True)
            with pytest.raises(LookupError):
                await client.get(b"read/00000000", b"another value")
            client.close()
            folder, members = etcd._folder, list(etcd._processes)
            assert folder is not None
            assert folder.exists()
        assert not folder.exists()
        assert all(member.returncode is not None for member in members)

    asyncio.run(main())
