"""The part of the fold that ends everything that was going on: a new generation of the ledger.

It is the first command behind a state that was carried over, from a backup or from the one disk
that was left, into a cluster of one peer. Nobody of before belongs to that cluster: no grant of
before is current any more, and none ever will be, since grants of a generation are higher than all
of those before it, however far the other copies of the ledger have got meanwhile.

Two clusters that go on from one copy have the same generation, and know nothing of each other.
Each counts from a start that it has drawn: so what one grants the other never does.
"""

from __future__ import annotations

from typing import Final

from p2psched.core import exclusive, once, poison
from p2psched.core.state import LedgerState
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Acknowledged, NewGeneration, Outcome, PeerWentDown, Rejected
from p2psched.model.job import Cause
from p2psched.model.taskset import EMPTY

LEVEL: Final = 2  # the first whose versions know of generations
# Command indices, and so grants, say in which generation they are.
INDEX_BITS: Final = 40
GENERATIONS_MAX: Final = 1 << 13  # what is higher is no whole number to all readers of JSON
# Of a million commands after each of two starts none is in both, but once in 130,000 times.
STARTS_MAX: Final = 1 << 38


def first_index(generation: int) -> int:
    """Commands of this generation have higher ones."""
    return generation << INDEX_BITS


def begin(s: LedgerState, command: NewGeneration) -> Outcome:
    if not s.generation < command.generation < GENERATIONS_MAX:
        return Rejected("refused", f"generation {command.generation} follows {s.generation}")
    if not 0 <= command.start < STARTS_MAX:
        return Rejected("refused", f"no generation starts at {command.start}")
    s.generation = command.generation
    s.level = max(s.level, LEVEL)
    s.command_index = max(s.command_index, first_index(s.generation) + command.start)
    for job in s.jobs_with_grants():
        once.doubt_all(job)
        s.drop_backups(job, job.backed, Cause.PEER_LOST)
        for held in list(job.grants.values()):
            poison.lose(s, job, held, held.tasks, died=False)
        assert job.orphaned == EMPTY
        s.note_unplaced(job)
    exclusive.begin_generation(s)
    for peer, row in s.peers.items():
        if row.live:
            reason = "of the generation before"
            s.events.append(PeerWentDown(peer, row.info.incarnation, reason))
    s.peers.clear()
    for name in s.with_blobs:
        job = s.jobs[name]
        for key, blob in job.blobs.items():
            # Which of them are really there it tells by itself, as after each start.
            job.blobs[key] = ResultBlob(blob.index, blob.name, blob.ref, (command.peer,))
        job.lost = EMPTY
    return Acknowledged()
