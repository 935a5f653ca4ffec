"""Ties what a holder of the whole ledger does for followers (`core.feeding`) to its loops."""

from __future__ import annotations

from p2psched.model.raft import Membership
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.scheduler_loop import SchedulerLoop


def begin_feeding(scheduling: SchedulerLoop, ledger: RaftLedger) -> None:
    engine = ledger.engine
    # What is committed for a follower concerns whoever feeds it.
    engine.concern.through = scheduling.scheduler.feeding.roll.through

    def group() -> tuple[Membership, bool]:
        return engine.raft.membership, engine.raft.leader_is_live()

    scheduling.attach_feeding(group)
