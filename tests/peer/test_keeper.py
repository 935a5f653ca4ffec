"""The keeper: what it copies, fetches, admits and removes, seen from the ledger and the blobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from p2psched.core.copies import ranked
from p2psched.core.machine import Machine
from p2psched.core.scheduler import Scheduler
from p2psched.model import chunks
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    Forget,
    Held,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    SubmitJob,
)
from p2psched.model.digests import digest_of
from p2psched.model.errors import ResultLost, Unavailable
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, FunctionWork, JobSpec, ProgramWork, Segment, SentFile
from p2psched.model.taskset import TaskSet
from p2psched.observe.clock import BootClock
from p2psched.peer.keeper import COLLECT_EVERY, PERIOD_S, REPAIR_AFTER_S, WHOLE_EVERY, Keeper
from p2psched.testing.virtual_time import run_virtually

PEERS = [PeerId(f"{number:032x}") for number in range(1, 6)]
ME = PEERS[0]
JOB = JobId("a" * 32)
ALL = TaskSet.of(0, 3)


def ref_of(text: str) -> BlobRef:
    data = text.encode()
    return BlobRef(digest_of(data), len(data))


class FakeScheduling:
    """A ledger of one: what is proposed is applied at once. `quorum` may be taken away."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(info(ME))
        self.proposed: list[Command] = []
        self.quorum = True
        self.asked = 0  # whether a majority agrees

    @property
    def machine(self) -> Machine:
        return self.scheduler.machine

    async def wait_linearizable(self) -> None:
        self.asked += 1
        if not self.quorum:
            raise Unavailable("no quorum")

    async def propose(self, command: Command) -> Outcome:
        self.proposed.append(command)
        return self.apply(command)

    def apply(self, command: Command) -> Outcome:
        machine = self.machine
        index = machine.applied_index + 1
        batch = Committed(index, index, index, (Envelope(ME, index, command),))
        outcomes, events = machine.apply(batch)
        self.events = events
        return outcomes[0]


class FakeBlobs:
    """What is here, and what other peers have."""

    def __init__(self) -> None:
        self.here: set[BlobRef] = set()
        self.elsewhere: set[BlobRef] = set()
        self.removed: list[BlobRef] = []
        self.pinned: set[BlobRef] = set()
        self.collected: list[set[bytes]] = []

    @property
    def folder(self) -> Path:
        return Path("/nowhere")

    def is_here(self, ref: BlobRef) -> bool:
        return ref in self.here

    async def read(self, ref: BlobRef, offset: int, size: int) -> bytes:
        raise AssertionError("a keeper reads nothing")

    async def adopt(self, files: Iterable[tuple[BlobRef, Path]]) -> None:
        raise AssertionError("nor does it keep what is new")

    async def fetch(self, refs: Iterable[BlobRef]) -> None:
        for ref in refs:
            if ref not in self.here and ref not in self.elsewhere:
                raise ResultLost("nobody has it")
            self.here.add(ref)

    async def remove(self, refs: Iterable[BlobRef]) -> list[BlobRef]:
        refs = list(refs)
        self.removed += [ref for ref in refs if ref not in self.pinned]
        return [ref for ref in refs if ref in self.pinned]

    async def collect(self, referenced: Callable[[], set[bytes]], *, wall_ms: int) -> int:
        self.collected.append(referenced())
        return 0


class Rig:
    def __init__(self, *, peers: int = 3, votes: bool = True) -> None:
        self.scheduling = FakeScheduling()
        self.blobs = FakeBlobs()
        self.keeper = Keeper(
            me=ME,
            scheduling=self.scheduling,  # type: ignore[arg-type]  # as much of it as is used
            blobs=self.blobs,
            is_voter=lambda: votes,
            clock=BootClock(),
        )
        for peer in PEERS[:peers]:
            self.scheduling.apply(PeerUp(info(peer)))

    def submit(self, spec: JobSpec) -> None:
        self.scheduling.apply(SubmitJob(JOB, spec))

    def finish(self, *blobs: ResultBlob, copies: int = 2) -> None:
        """A job of three tasks that has these large results."""
        self.submit(JobSpec(name="", tasks=ALL, work=ProgramWork(("x",)), copies=copies))
        self.scheduling.apply(Place(JOB, ALL, ME, 1))
        grant = self.scheduling.machine.command_index
        segment = Segment(0, 3, Cause.OK, chunks.pack([b"", b"", b""]), 3, blobs)
        self.scheduling.apply(Complete(JOB, grant, (segment,)))

    def run(self, seconds: float) -> None:
        async def life() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.keeper.run()

        run_virtually(life())

    def miss(self, text: str) -> None:
        """Somebody asks for it in vain, as soon as the keeper runs; much less than a period."""

        async def life() -> None:
            asyncio.get_running_loop().call_soon(self.keeper.on_missed, ref_of(text))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S / 10):
                    await self.keeper.run()

        run_virtually(life())

    def holders(self, index: int = 0) -> tuple[PeerId, ...]:
        return self.scheduling.machine.jobs[JOB].blobs[index, ""].holders


def info(peer: PeerId, incarnation: int = 1) -> PeerInfo:
    return PeerInfo(peer, incarnation, f"p{peer[-1]}", "h:1", 1, 1, "0", "3.11")


def result(text: str, *holders: PeerId, index: int = 0) -> ResultBlob:
    return ResultBlob(index, "", ref_of(text), tuple(sorted(holders)))


def test_a_copy_that_falls_to_this_peer_is_taken_and_the_ledger_hears_of_it() -> None:
    rig = Rig(peers=2)
    rig.finish(result("x", PEERS[1]))
    rig.blobs.elsewhere.add(ref_of("x"))
    rig.run(REPAIR_AFTER_S + 3)
    assert rig.blobs.is_here(ref_of("x"))
    assert rig.holders() == (ME, PEERS[1])


def test_the_ledger_hears_at_once_of_a_result_that_was_asked_for_and_is_gone() -> None:
    rig = Rig(peers=1)
    rig.finish(result("x", ME), copies=1)
    rig.miss("x")
    assert rig.holders() == ()


def test_a_miss_of_what_others_have_is_no_news() -> None:
    rig = Rig(peers=2)
    rig.finish(result("x", PEERS[1]), copies=1)
    rig.miss("x")
    assert rig.scheduling.proposed == []
    assert rig.holders() == (PEERS[1],)


def test_a_copy_that_falls_to_another_peer_is_left_to_it() -> None:
    rig = Rig(peers=5)
    others = PEERS[:4]
    text = next(t for t in map(str, range(99)) if ranked(ref_of(t).digest, others)[0] != ME)
    rig.finish(result(text, PEERS[4]))
    rig.blobs.elsewhere.add(ref_of(text))
    rig.run(REPAIR_AFTER_S + 3)
    assert not rig.blobs.here
    assert rig.scheduling.proposed == []


def test_a_peer_that_is_back_soon_costs_no_copy() -> None:
    rig = Rig(peers=3)
    rig.blobs.here.add(ref_of("x"))
    rig.blobs.elsewhere.add(ref_of("x"))
    rig.finish(result("x", PEERS[1], PEERS[2]))
    rig.scheduling.apply(PeerDown(PEERS[2], 1, "killed"))
    rig.run(REPAIR_AFTER_S - 1)
    rig.scheduling.apply(PeerUp(info(PEERS[2], incarnation=2)))
    rig.run(REPAIR_AFTER_S - 1)
    assert rig.scheduling.proposed == []


def test_a_holder_that_died_is_made_up_for() -> None:
    rig = Rig(peers=3)
    rig.blobs.elsewhere.add(ref_of("x"))
    rig.finish(result("x", PEERS[1], PEERS[2]))
    rig.scheduling.apply(PeerDown(PEERS[2], 1, "killed"))
    rig.run(REPAIR_AFTER_S + 3)
    assert rig.holders() == (ME, PEERS[1], PEERS[2])


def test_a_missing_copy_is_admitted_and_then_made_up_for() -> None:
    rig = Rig(peers=2)
    rig.finish(result("x", ME, PEERS[1]))
    rig.blobs.elsewhere.add(ref_of("x"))
    rig.run(1.5)
    assert rig.holders() == (PEERS[1],)
    rig.run(REPAIR_AFTER_S + 3)
    assert rig.holders() == (ME, PEERS[1])


def test_damage_is_admitted_when_it_is_found() -> None:
    rig = Rig(peers=2)
    rig.blobs.here.add(ref_of("x"))
    rig.finish(result("x", ME, PEERS[1]))
    rig.run(3)
    assert rig.scheduling.proposed == []
    rig.blobs.here.clear()
    rig.keeper.on_damaged(ref_of("x"))
    rig.run(3)
    assert rig.scheduling.proposed[0] == Held(JOB, ME, ((0, "", ref_of("x").digest),), False)


def test_the_last_copy_gone_is_a_lost_result() -> None:
    rig = Rig(peers=2)
    rig.finish(result("x", ME))
    rig.run(REPAIR_AFTER_S + 3)
    assert rig.scheduling.machine.jobs[JOB].lost == TaskSet.of(0, 1)


@pytest.mark.parametrize("votes", [True, False])
def test_only_voters_fetch_what_jobs_refer_to(votes: bool) -> None:
    rig = Rig(votes=votes)
    rig.blobs.elsewhere.update((ref_of("code"), ref_of("file")))
    work = FunctionWork("", ref_of("code"), (chunks.pack([b""]),), 1, "3.11")
    rig.submit(JobSpec(name="", tasks=TaskSet.of(0, 1), work=work))
    rig.run(2)
    assert rig.blobs.is_here(ref_of("code")) is votes


def test_blobs_of_a_forgotten_job_are_removed_unless_another_job_needs_them() -> None:
    rig = Rig()
    rig.blobs.here.update((ref_of("x"), ref_of("shared")))
    files = (SentFile("f", 0o600, ref_of("shared")),)
    other = JobSpec(name="", tasks=ALL, work=ProgramWork(("x",), files=files))
    rig.scheduling.apply(SubmitJob(JobId("b" * 32), other))
    rig.finish(result("x", ME, PEERS[1]), result("shared", ME, PEERS[1], index=1))
    rig.scheduling.apply(Forget(JOB))
    rig.keeper.on_stored(rig.scheduling.events)
    rig.run(2)
    assert rig.blobs.removed == [ref_of("x")]


def test_blobs_of_a_forgotten_job_that_a_client_pinned_are_removed_when_that_is_over() -> None:
    rig = Rig()
    rig.blobs.pinned.add(ref_of("x"))
    rig.finish(result("x", ME, PEERS[1]))
    rig.scheduling.apply(Forget(JOB))
    rig.keeper.on_stored(rig.scheduling.events)
    rig.run(COLLECT_EVERY * 2.0)
    assert rig.blobs.removed == []
    rig.blobs.pinned.clear()
    rig.run(COLLECT_EVERY * 2.0)
    assert rig.blobs.removed == [ref_of("x")]


def test_nothing_is_judged_without_a_quorum() -> None:
    rig = Rig()
    rig.finish(result("x", ME, PEERS[1]))
    rig.scheduling.quorum = False
    rig.run(REPAIR_AFTER_S + 3)
    assert rig.blobs.collected == []
    assert rig.scheduling.proposed == []


def test_garbage_is_what_neither_a_job_nor_a_result_here_refers_to() -> None:
    rig = Rig()
    rig.blobs.here.update((ref_of("x"), ref_of("file")))
    rig.finish(result("x", ME, PEERS[1]), result("not mine", PEERS[1], PEERS[2], index=1))
    files = (SentFile("f", 0o600, ref_of("file")),)
    spec = JobSpec(name="", tasks=ALL, work=ProgramWork(("x",), files=files))
    rig.scheduling.apply(SubmitJob(JobId("b" * 32), spec))
    rig.run(2)
    assert rig.blobs.collected == [{ref_of("x").digest, ref_of("file").digest}]


def code_of(rig: Rig) -> None:
    work = FunctionWork("", ref_of("code"), (chunks.pack([b""]),), 1, "3.11")
    rig.submit(JobSpec(name="", tasks=TaskSet.of(0, 1), work=work))


def test_what_was_whole_is_looked_at_seldom_until_the_ledger_goes_on() -> None:
    rig = Rig()
    rig.blobs.here.add(ref_of("code"))
    code_of(rig)
    rig.run((2 * WHOLE_EVERY - 0.5) * PERIOD_S)
    assert rig.scheduling.asked == 2
    rig.finish(result("x", ME, PEERS[1]))
    rig.run(2.5 * PERIOD_S)
    assert rig.scheduling.asked > 2


def test_what_is_not_whole_is_looked_at_each_time() -> None:
    rig = Rig()
    code_of(rig)  # nobody has it
    rig.run((WHOLE_EVERY - 0.5) * PERIOD_S)
    assert rig.scheduling.asked >= WHOLE_EVERY - 2


def test_what_somebody_took_away_here_is_there_again_though_the_ledger_stood_still() -> None:
    rig = Rig()
    rig.blobs.here.add(ref_of("code"))
    rig.blobs.elsewhere.add(ref_of("code"))
    code_of(rig)

    async def life() -> None:
        later = asyncio.get_running_loop().call_later
        later(3 * PERIOD_S, rig.blobs.here.clear)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3 * WHOLE_EVERY * PERIOD_S):
                await rig.keeper.run()

    run_virtually(life())
    assert rig.blobs.is_here(ref_of("code"))
