"""The state machine as bytes: everything is in them, and nothing else decides them."""

from __future__ import annotations

import random
import typing

import pytest

from p2psched.core.forgotten import Forgotten, Generation
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.machine import Machine
from p2psched.core.raft.made import open_entry
from p2psched.core.snapshot import (
    DERIVED,
    IMAGES,
    TRANSIENT,
    MachineImage,
    encode_machine,
    restore_machine,
)
from p2psched.core.state import PeerRow
from p2psched.model.errors import Refused
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, new_id
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job


def history(seed: int) -> list[Committed]:
    """What a simulated cluster committed: jobs that end, fail, wait, are cancelled; a peer that
    went down."""
    cluster = SimCluster(seed=seed, peers=3)
    rng = random.Random(seed)
    for number in range(6):
        job = cluster.submit(
            sim_job(
                TaskSet.of(0, rng.randint(1, 30)),
                mean_us=rng.choice((1_000, 200_000)),
                fail_permille=rng.choice((0, 300)),
                retries=number % 3,
            )
        )
        if number % 4 == 3:
            cluster.cancel(job)
        cluster.run_for(300)
    cluster.kill(2)
    cluster.run_for(6_000)
    leader = next(peer for peer in cluster.peers if peer.engine.raft.is_leader)
    raft = leader.engine.raft
    return [open_entry(entry) for entry in raft.entries(1, raft.commit + 1)]


@pytest.mark.parametrize("seed", range(4))
def test_a_restored_machine_goes_on_as_the_one_that_never_stopped(seed: int) -> None:
    batches = history(seed)
    assert len(batches) > 20
    whole = Machine()
    for place, batch in enumerate(batches):
        restored = Machine()
        restore_machine(restored, encode_machine(whole))
        assert restored.dump() == whole.dump()
        assert restored.sent == whole.sent
        assert encode_machine(restored) == encode_machine(whole)
        for later in batches[place : place + 5]:
            restored.apply(later)
        whole.apply(batch)
        ahead = Machine()
        for earlier in batches[: min(place + 5, len(batches))]:
            ahead.apply(earlier)
        assert restored.state_hash == ahead.state_hash
        assert encode_machine(restored) == encode_machine(ahead)


def test_nothing_of_the_state_is_left_out() -> None:
    for cls, image in IMAGES.items():
        slots = set(cls.__slots__)  # type: ignore[attr-defined]
        if cls is Generation:
            slots = slots - {"_sorted", "_new"} | {"ids"}  # both are told as one
        assert set(image.__struct_fields__) == slots, cls
    assert set(MachineImage.__struct_fields__) | TRANSIENT | DERIVED == set(vars(Machine()))
    assert {PeerRow, Generation, Forgotten} == set(IMAGES)


def test_fields_of_jobs_and_grants_stay_where_older_snapshots_have_them() -> None:
    first = (
        "id spec full index submitted_wall_ms ended_wall_ms ended_ms state waiting grants orphaned "
        "succeeded failed cancelled committed losses failures segments attempts_lost "
        "attempts_failed results_refused finished_by estimate_us blobs lost result_bytes pinned "
        "deaths killed spaceless "
    )
    assert f"{' '.join(Job.__struct_fields__)} ".startswith(first)
    first = "grant peer incarnation tasks estimate_us suspect "
    assert f"{' '.join(HeldGrant.__struct_fields__)} ".startswith(first)


def test_nothing_in_the_state_has_an_order_of_its_own_but_forgotten_ids() -> None:
    for image in (MachineImage, Job, HeldGrant, *IMAGES.values()):
        for name, kind in typing.get_type_hints(image).items():
            assert "set[" not in str(kind), (image, name)


def test_forgotten_ids_are_the_same_bytes_in_whatever_order_they_came() -> None:
    rng = random.Random(4)
    ids = [JobId(new_id(rng)) for _ in range(3_000)]
    one, other = Machine(), Machine()
    for job in ids:
        one.forgotten.add(job, 7)
    for job in sorted(ids):
        other.forgotten.add(job, 7)
    assert encode_machine(one) == encode_machine(other)
    restored = Machine()
    restore_machine(restored, encode_machine(one))
    assert all(job in restored.forgotten for job in ids)
    restored.forgotten.add(JobId(new_id(rng)), 8)
    assert encode_machine(restored) != encode_machine(one)


def test_what_was_restored_shares_nothing_with_its_origin() -> None:
    origin = Machine()
    for batch in history(1):
        origin.apply(batch)
    before = encode_machine(origin)
    twin = Machine()
    restore_machine(twin, before)
    for job in twin.jobs.values():
        job.committed.clear()
        job.finished_by.clear()
        job.losses = job.losses.plus(TaskSet.of(0, 100))
    twin.peers.clear()
    assert encode_machine(origin) == before


def test_a_snapshot_of_another_version_is_refused_and_changes_nothing() -> None:
    machine = Machine()
    for batch in history(2)[:10]:
        machine.apply(batch)
    before = encode_machine(machine)
    for strange in (b"", b"\x92\x02\xc0", b"\x92\x01\xc0", before[:-1]):
        with pytest.raises(Refused, match="version"):
            restore_machine(machine, strange)
    assert encode_machine(machine) == before
