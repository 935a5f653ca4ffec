"""What the referees of a cluster know at its start, if it goes on from the state of another one."""

from __future__ import annotations

from p2psched.model.ids import JobId
from p2psched.model.raft import Snapshot
from p2psched.testing.referees import Referees


def inherit(referees: Referees, before: Referees, upto: int) -> None:
    """Entries up to this one were committed in the cluster `before`, and nobody tells of them any
    more."""
    for seen, entry in zip(before.committed[:upto], before.entries[:upto], strict=True):
        referees.on_first_committed(entry, seen, entry.term)
    recorded = referees._recorded
    for facts in referees._expected.values():
        for what, job, index, _ in facts:
            if what == "recorded":
                recorded.add((JobId(job), index))
            elif what == "reopened":
                recorded.discard((JobId(job), index))
    referees._expected.clear()
    referees._said = referees.shadow.index
    referees._hashes |= {at: state for at, state in before._hashes.items() if at <= upto}
    said = before.events.said
    referees.events.said |= {at: records for at, records in said.items() if at <= upto}
    made = before.snapshots.made
    referees.snapshots.made |= {at: snapshot for at, snapshot in made.items() if at <= upto}


def inherit_snapshot(referees: Referees, snapshot: Snapshot, state_hash: str) -> None:
    """The state that it goes on from was taken aside."""
    referees._hashes[snapshot.index] = state_hash
    referees.snapshots.made[snapshot.index] = snapshot
