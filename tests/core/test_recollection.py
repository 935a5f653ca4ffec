"""What a peer noted of its work before it was started anew, and what the ledger knows of it."""

from __future__ import annotations

import pytest

from p2psched.core.owner import StopBatch
from p2psched.core.separation import RECALL_MS
from p2psched.model.commands import Cancel, Forget, SubmitJob
from tests.core.test_machine import JOB, spec
from tests.core.test_separation import FOUR, Cut, left


@pytest.mark.parametrize("last", [Cancel(JOB), Forget(JOB)], ids=["ended", "forgotten"])
def test_what_the_ledger_ended_meanwhile_is_not_begun_again(last: Cancel | Forget) -> None:
    peer = Cut(incarnation=2)
    peer.begin(left())
    peer.commit_from_elsewhere(SubmitJob(JOB, spec(FOUR)), Cancel(JOB), last)
    peer.lose(RECALL_MS + 1_000)
    assert peer.batches() == []


def test_what_is_begun_again_ends_once_the_ledger_says_that_its_job_is_over() -> None:
    """The process before had the results, which were committed: nothing is revoked then."""
    peer = Cut(incarnation=2)
    peer.begin(left())
    peer.lose(RECALL_MS + 1_000)
    begun = peer.batches()
    assert begun
    assert list(peer.scheduler.owner.owned())  # two slots, four tasks
    peer.commit_from_elsewhere(SubmitJob(JOB, spec(FOUR)), Cancel(JOB))
    peer.round()
    assert list(peer.scheduler.owner.owned()) == []
    stopped = {effect.batch for effect in peer.done if isinstance(effect, StopBatch)}
    assert stopped == {batch.id for batch in begun}
