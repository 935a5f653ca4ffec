"""What a peer that was cut off and restarted says of results: those that a process before it
brought count, whichever way it hears of that."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.cutoff import NOTICE_MS, SETTLE_MS
from p2psched.core.machine import Machine
from p2psched.core.scheduler import Restored
from p2psched.core.separation import RECALL_MS
from p2psched.core.snapshot import encode_machine
from p2psched.core.verdicts import current_grants
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    PeerInfo,
    PeerUp,
    Place,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.job import Cause
from p2psched.model.reconcile import Judged, KeptResult, OwnedPart
from p2psched.model.taskset import TaskSet
from tests.core.test_machine import JOB, P, Q, blob_ref, ended, spec
from tests.core.test_separation import Cut, left

FOUR = TaskSet.of(0, 4)
FIRST = TaskSet.of(0, 1)


class Ledger:
    """Where the majority is."""

    def __init__(self) -> None:
        self.machine = Machine()
        for peer in (P, Q):
            self.commit(PeerUp(PeerInfo(peer, 1, peer, "", 0, 2, "", "")))
        self.commit(SubmitJob(JOB, spec(FOUR)))

    def commit(self, command: Command) -> int:
        """Its number, which is a grant if it places something."""
        index = self.machine.applied_index + 1
        envelope = Envelope(Q, 9_000 + index, command)
        self.machine.apply(Committed(index, index, 0, (envelope,)))
        return self.machine.command_index


@pytest.mark.parametrize("away_ms", [NOTICE_MS, RECALL_MS + 500])
def test_a_result_that_a_process_before_this_one_brought_counts(away_ms: int) -> None:
    """It learns that from a snapshot, while a result waits for its copies, and work was begun
    again."""
    ledger = Ledger()
    grant = ledger.commit(Place(JOB, FOUR, P, 1))
    ledger.commit(Complete(JOB, grant, (ended(0, 1),)))
    ledger.commit(Complete(JOB, grant, (ended(1, 2),)))
    peer = Cut(incarnation=2)
    large = msgspec.structs.replace(ended(0, 1), blobs=(ResultBlob(0, "", blob_ref(1)),))
    kept = KeptResult(JOB, grant, large, copies=2)
    owned = OwnedPart(JOB, grant, 1, TaskSet.of(0, 2))
    peer.begin(left(results=(kept,), owned=(owned,)))
    peer.lose(away_ms)
    peer.do(Restored(peer.now_ms, encode_machine(ledger.machine)))
    peer.hear()
    peer.commit()
    peer.wait_heard(SETTLE_MS + 200)
    (report,) = peer.reports
    began_again = away_ms > RECALL_MS
    counted = TaskSet.of(0, 1 + began_again)
    assert report.committed == (Judged(JOB, grant, counted, grant),)
    assert (report.discarded, report.ended) == ((), ())
    counts = report.tasks_committed, report.tasks_discarded, report.tasks_ended
    assert counts == (len(counted), 0, 0)


def test_of_two_grants_under_which_a_task_has_ended_the_newer_one_counts() -> None:
    ledger = Ledger()
    one = ledger.commit(Place(JOB, FOUR, P, 1))
    ledger.commit(Complete(JOB, one, (ended(0, 1, cause=Cause.EXCEPTION), ended(1, 4))))
    ledger.commit(Retry(JOB, spec(FOUR)))
    other = ledger.commit(Place(JOB, FIRST, Q, 1))
    assert current_grants(ledger.machine.jobs[JOB], FIRST) == [(other, FIRST)]
    ledger.commit(Complete(JOB, other, (ended(0, 1),)))
    assert current_grants(ledger.machine.jobs[JOB], FIRST) == [(other, FIRST)]
