"""Decisions of the ledger, beside etcd: commits and linearizable reads, with so many in flight.

A commit of ours is `PinJob`, toggled on a job that has ended: it runs no task, and is answered once
it is on the disks of a majority and applied. One of etcd is a put of 100 bytes under a new key. A
read is of one job by its id, or of one key. Both clusters are on the same disk with as many members
(but of five peers three vote, where all five members of etcd do), and both are up while the other
one is measured. The client is this process, on one loop and as many connections as it needs: 64
calls at a time are what one session of ours opens.

Every commit is looked for at the end of its run, on every member by itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from bench.load import measure
from bench.registry import OURS, Measure, Stage
from bench.rivals.etcd import EtcdClient
from p2psched.client.find import find_peers
from p2psched.client.session import ASKS_MAX, Session
from p2psched.model.ids import JobId
from p2psched.model.keep_messages import PinJob
from p2psched.model.messages import Done, JobView, ShowJob

Contender = Callable[..., Awaitable[Mapping[str, float]]]  # (stage, in_flight=, role=)

COUNTS: Final = {1: 400, 8: 1_600, 64: 6_000, 512: 10_000}  # in flight -> calls in a run
VALUE: Final = b"x" * 100
ETCD: Final = "etcd"
_AGREE_TIMEOUT_S: Final = 30.0
_JOBS: Final = max(COUNTS)
_runs = itertools.count()


async def commits(stage: Stage, *, in_flight: int, role: str = "leader") -> Mapping[str, float]:
    async with AsyncExitStack() as stack:
        jobs = await _ended_jobs(stage)
        opened = await sessions(stack, stage, in_flight, role)
        pinned = dict(jobs)
        lanes = list(jobs)

        async def call(lane: int) -> None:
            job = lanes[lane]
            pinned[job] = not pinned[job]
            await opened[lane % len(opened)].call(PinJob(job, pinned[job]), Done)

        found = await measure(call, stage.cluster, in_flight=in_flight, count=COUNTS[in_flight])
        await _check(stage, pinned)
        return found


async def reads(stage: Stage, *, in_flight: int, role: str = "leader") -> Mapping[str, float]:
    async with AsyncExitStack() as stack:
        jobs = list(await _ended_jobs(stage))
        opened = await sessions(stack, stage, in_flight, role)

        async def call(lane: int) -> None:
            view = await opened[lane % len(opened)].call(ShowJob(jobs[lane]), JobView)
            assert view.job == jobs[lane]

        return await measure(call, stage.cluster, in_flight=in_flight, count=COUNTS[in_flight])


async def etcd_commits(
    stage: Stage, *, in_flight: int, role: str = "leader"
) -> Mapping[str, float]:
    await stage.etcd.start()
    client = await stage.etcd.client(leader=role == "leader")
    prefix, numbers = f"run{next(_runs)}/", itertools.count()

    async def call(_: int) -> None:
        await client.put(f"{prefix}{next(numbers):08d}".encode(), VALUE)

    try:
        found = await measure(call, stage.etcd, in_flight=in_flight, count=COUNTS[in_flight])
    finally:
        client.close()
    put = next(numbers)
    async with asyncio.timeout(_AGREE_TIMEOUT_S):
        while set(await stage.etcd.counts(prefix)) != {put}:  # noqa: ASYNC110 (other processes)
            await asyncio.sleep(0.05)
    return found


async def etcd_reads(stage: Stage, *, in_flight: int, role: str = "leader") -> Mapping[str, float]:
    await stage.etcd.start()
    client = await stage.etcd.client(leader=role == "leader")
    try:
        keys = await _put_keys(client, in_flight)

        async def call(lane: int) -> None:
            await client.get(keys[lane], VALUE)

        return await measure(call, stage.etcd, in_flight=in_flight, count=COUNTS[in_flight])
    finally:
        client.close()


async def _put_keys(client: EtcdClient, count: int) -> list[bytes]:
    keys = [f"read/{number:08d}".encode() for number in range(count)]
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(client.put(key, VALUE))
    return keys


async def _ended_jobs(stage: Stage) -> dict[JobId, bool]:
    """As many as there are lanes at most, and whether they are pinned now."""
    missing = _JOBS - len(await stage.client.jobs(limit=_JOBS))
    made = [await stage.client.map("bench.work:work", [number]) for number in range(missing)]
    for job in made:
        await job.result()
    views = await stage.client.jobs(limit=_JOBS)
    assert all(view.ended_ms is not None for view in views)
    return {view.job: view.pinned for view in views}


async def sessions(stack: AsyncExitStack, stage: Stage, in_flight: int, role: str) -> list[Session]:
    address = stage.cluster.addresses[await stage.cluster.number_of(role)]
    _, secret = find_peers(address, secret_file=None, runtime_dir=stage.cluster.runtime_dir)
    wanted = -(-in_flight // ASKS_MAX)
    sessions = [Session([address], secret=secret) for _ in range(wanted)]
    return [await stack.enter_async_context(session) for session in sessions]


async def _check(stage: Stage, pinned: Mapping[JobId, bool]) -> None:
    """Every peer has what was answered, and got there by the same decisions. Raises
    AssertionError, TimeoutError if they don't come to the same point."""
    async with asyncio.timeout(_AGREE_TIMEOUT_S):
        said = await stage.cluster.statuses()
        while len({status.applied_index for status in said}) > 1:
            await asyncio.sleep(0.05)
            said = await stage.cluster.statuses()
    assert len({status.state_hash for status in said}) == 1, "peers don't agree"
    for number in range(len(stage.cluster.processes)):
        async with stage.cluster.client(number) as client:
            views = await client.jobs(limit=_JOBS)
        assert {view.job: view.pinned for view in views} == pinned, f"peer {number} lacks commits"


def _measures(peers: int) -> Iterator[Measure]:
    kinds: tuple[tuple[str, Contender, Contender], ...] = (
        ("commits", commits, etcd_commits),
        ("reads", reads, etcd_reads),
    )
    for kind, ours, etcd in kinds:
        for in_flight in COUNTS:
            contenders = {
                OURS: partial(ours, in_flight=in_flight),
                ETCD: partial(etcd, in_flight=in_flight),
            }
            if in_flight == 64 and peers == 3:
                contenders[f"{OURS}_follower"] = partial(ours, in_flight=in_flight, role="voter")
                contenders[f"{ETCD}_follower"] = partial(etcd, in_flight=in_flight, role="voter")
            yield Measure(
                f"{kind}_{in_flight}" + ("" if peers == 3 else f"_of_{peers}"),
                f"{kind} of the ledger, {in_flight} in flight, {peers} peers",
                contenders,
                slots=(1,) + (0,) * (peers - 1),
            )


MEASURES: Final = (*_measures(3), *_measures(5))
