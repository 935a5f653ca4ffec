"""What is put behind a ledger that goes on as that of another cluster: a group of one, and the
command that ends everything of before (`core.generation`)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from p2psched.core.generation import STARTS_MAX
from p2psched.core.raft.state import encode_membership
from p2psched.model.commands import Command, Envelope, NewGeneration
from p2psched.model.errors import Damaged
from p2psched.model.limits import ENTRY_BYTES_MAX
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.ports.disk import Disk
from p2psched.store.log import LogStore, Recovered
from p2psched.store.segments import encode_header, segment_name

REMOVED_MAX: Final = 256  # identities of before that the group remembers: the oldest are let go

_encode: Final = msgspec.msgpack.Encoder().encode


def begin(
    store: LogStore,
    found: Recovered,
    *,
    member: Member,
    generation: int,
    before: Membership,
    after: Sequence[Command] = (),
    rng: random.Random,
    wall_ms: int,
) -> None:
    """Durable on return. `member` is the only one from then on; `after` are commands that are
    applied first of all. `wall_ms` is for people. Raises OSError."""
    last = found.entries[-1] if found.entries else found.snapshot
    assert last is not None, "a ledger without anything has no later generation"
    term = max(found.hard_state.term, last.term) + 1  # a new log has had no term yet
    known = [m.peer for m in (*before.voters, *before.learners) if m.peer != member.peer]
    removed = (*before.removed, *known)[-REMOVED_MAX:]
    payloads = [encode_membership(Membership((member,), removed=removed))]
    begins = NewGeneration(generation, member.peer, rng.randrange(STARTS_MAX))
    payloads += _payloads(member, [begins, *after], rng.getrandbits(48))
    entries = [
        Entry(
            last.index + number,
            term,
            EntryKind.MEMBERSHIP if number == 1 else EntryKind.COMMANDS,
            last.stamp_ms,
            wall_ms,
            payload,
        )
        for number, payload in enumerate(payloads, start=1)
    ]
    store.write(hard_state=HardState(term, None), truncate_from=None, entries=entries)
    store.sync()
    store.mark_end()


def begin_with(
    disk: Disk,
    snapshot: Snapshot,
    *,
    member: Member,
    generation: int,
    after: Sequence[Command] = (),
    rng: random.Random,
    wall_ms: int,
) -> None:
    """The same on a disk that holds nothing but this snapshot. Raises Damaged, OSError."""
    disk.replace(segment_name(1), encode_header(1, 0))  # a snapshot has a log beside it
    store, found = LogStore.open(disk)
    try:
        if found.snapshot != snapshot:
            raise Damaged("the state can't be read back from the disk that it was written to")
        begin(
            store,
            found,
            member=member,
            generation=generation,
            before=snapshot.membership,
            after=after,
            rng=rng,
            wall_ms=wall_ms,
        )
    finally:
        store.close()


def _payloads(member: Member, commands: Sequence[Command], first: int) -> Iterator[bytes]:
    """Entries of commands, none longer than others are. `first`: the number of the first."""
    batch: list[bytes] = []
    size = 0
    for number, command in enumerate(commands):
        data = _encode(Envelope(member.peer, first + number, command))
        if batch and size + len(data) > ENTRY_BYTES_MAX:
            yield _encode([msgspec.Raw(part) for part in batch])
            batch, size = [], 0
        batch.append(data)
        size += len(data)
    yield _encode([msgspec.Raw(part) for part in batch])
