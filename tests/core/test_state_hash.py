"""The hash by which peers see that their machines agree."""

from __future__ import annotations

import msgspec

from p2psched.model import chunks
from p2psched.model.commands import Cancel, Command, Complete, Place, SubmitJob
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from tests.core.test_machine import ALL, JOB, Ledger, P, ended, spec, up


def test_the_hash_tells_outcomes_and_events_apart_and_leaves_out_the_bytes_of_results() -> None:
    def after(*commands: Command) -> str:
        ledger = Ledger()
        for command in (up(P), SubmitJob(JOB, spec()), Place(JOB, ALL, P, 1), *commands):
            ledger.do(command)
        return ledger.machine.state_hash

    one, other = ended(0, 1), msgspec.structs.replace(ended(0, 1), data=chunks.pack([b"other"]))
    assert after(Complete(JOB, 3, (one,))) == after(Complete(JOB, 3, (other,)))
    hashes = {
        after(),
        after(Complete(JOB, 3, (one,))),
        after(Complete(JOB, 2, (one,))),  # refused
        after(Complete(JOB, 3, (ended(1, 2),))),
        after(Complete(JOB, 3, (ended(0, 1, Cause.EXIT),))),
        after(Cancel(JOB)),
        after(Cancel(JobId("unknown"))),
    }
    assert len(hashes) == 7
