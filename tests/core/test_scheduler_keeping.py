"""One peer above the ledger: forgetting by itself, and large results on their way."""

from __future__ import annotations

import msgspec

from p2psched.core.owner import CopyBlobs
from p2psched.core.retention import KEEP_MS
from p2psched.core.scheduler import Applied, CoordinatorChanged, Copied, Executed
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Cancel,
    Complete,
    Forget,
    PeerUp,
    Place,
    SubmitJob,
)
from p2psched.model.execution import Ended, Progress
from p2psched.model.taskset import EMPTY
from tests.core.test_machine import JOB, P, Q, blob_ref, ended, spec
from tests.core.test_scheduler import FOUR, SUBMIT, Peer


def up(peer: Peer) -> Peer:
    info = peer.scheduler.info
    peer.commit_from_elsewhere(PeerUp(info))
    return peer


def forgets(commands: object) -> list[Forget]:
    assert isinstance(commands, list)
    return [command for command in commands if isinstance(command, Forget)]


def test_a_grant_whose_job_is_forgotten_in_the_same_entry_starts_nothing() -> None:
    peer = up(Peer())
    peer.commit_from_elsewhere(SUBMIT, Place(JOB, FOUR, P, 1), Cancel(JOB), Forget(JOB))
    assert peer.round() == []
    assert peer.batches() == []
    assert JOB in peer.scheduler.machine.forgotten


def test_the_coordinator_forgets_what_is_over_time_and_nobody_else_does() -> None:
    peer = up(Peer())
    other = up(Peer())
    peer.coordinate()
    for each in (peer, other):
        each.commit_from_elsewhere(SUBMIT, Cancel(JOB))
        assert forgets(each.wait(KEEP_MS - 1)) == []
    assert forgets(other.wait(1)) == []
    assert forgets(peer.wait(1)) == [Forget(JOB, 1_000, 1_000 + KEEP_MS)]
    peer.commit()
    assert JOB not in peer.scheduler.machine.jobs


def test_who_coordinates_no_more_forgets_no_more() -> None:
    peer = up(Peer())
    peer.coordinate()
    peer.commit_from_elsewhere(SUBMIT, Cancel(JOB))
    peer.do(CoordinatorChanged(peer.now_ms, Q, is_self=False))
    assert forgets(peer.wait(2 * KEEP_MS)) == []
    peer.coordinate()
    assert forgets(peer.wait(1)) == [Forget(JOB, 1_000, 1_000 + KEEP_MS)]


def test_how_long_a_job_is_kept_counts_in_ledger_time_that_goes_on_without_commits() -> None:
    peer = up(Peer())
    peer.coordinate()
    short = msgspec.structs.replace(spec(FOUR), keep_ms=500)
    peer.commit_from_elsewhere(SubmitJob(JOB, short), Cancel(JOB))
    assert forgets(peer.wait(499)) == []
    assert forgets(peer.wait(1)) == [Forget(JOB, 1_000, 1_500)]


def test_applying_nothing_does_not_set_ledger_time_back() -> None:
    peer = up(Peer())
    before = peer.scheduler.ledger_ms(peer.now_ms)
    peer.do(Applied(peer.now_ms, ()))
    assert peer.scheduler.ledger_ms(peer.now_ms) == before == 1_000


def test_a_large_result_is_proposed_with_who_has_copies() -> None:
    peer = up(Peer())
    peer.commit_from_elsewhere(SUBMIT)
    peer.grant(FOUR)
    batch = peer.batches()[0]
    blob = ResultBlob(0, "", blob_ref(0))
    segment = msgspec.structs.replace(ended(0, 1), blobs=(blob,))
    peer.do(Executed(peer.now_ms, Progress(batch.id, (segment,))))
    peer.do(Executed(peer.now_ms, Ended(batch.id, EMPTY)))
    (effect,) = peer.of(CopyBlobs)
    assert isinstance(effect, CopyBlobs)
    assert not [c for c in peer.round() if isinstance(c, Complete)]
    held = msgspec.structs.replace(blob, holders=(P, Q))
    peer.do(Copied(peer.now_ms, effect.number, (held,)))
    (command,) = [c for c in peer.round() if isinstance(c, Complete)]
    assert command.segments[0].blobs == (held,)
    peer.commit()
    assert peer.scheduler.machine.jobs[JOB].blobs == {(0, ""): held}
