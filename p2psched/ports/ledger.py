"""Port `Ledger`: a replicated, ordered, durable list of commands. Any engine that offers this can
carry the scheduler; the embedded Raft is the default (`peer.raft_loop`).

A ledger gives: every peer sees the same committed batches in the same order, without gaps, from
the first, or from a state that stands for the first ones; what a majority has stored is never lost.
It does not give answers to proposals: a proposer sees its own envelope among the committed ones,
and repeats it until it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from p2psched.model.commands import Envelope
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId


class LedgerListener(Protocol):
    """What an engine calls, always from its own loop, never from inside a call to it."""

    def on_committed(self, batches: Sequence[Committed]) -> None: ...

    def on_restored(self, state: bytes | memoryview) -> None:
        """The ledger goes on from here: `state` is what `capture_state` said on some peer that
        had applied everything up to now when it began. At the start, or when others have dropped
        what this peer lacks; instead of batches."""
        ...

    def capture_state(self, index: int) -> Iterator[bytes] | None:
        """Everything that the batches up to entry `index`, the last one, have led to, as bytes,
        piece by piece; more batches may come between two pieces, and a later capture ends this one.
        Together the pieces are equal on every peer. None if not all of them were applied: whoever
        stops takes no more, and what it has is not the state as of that entry."""
        ...

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        """Another peer (or nobody that we know of) coordinates from now on. With `is_self` every
        entry of earlier coordinators has been delivered before."""
        ...

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        """Only on the coordinator, just before an entry is made of `envelopes`: the chance to add
        first placements to it."""
        ...


class Ledger(Protocol):
    def append(self, envelopes: Sequence[Envelope]) -> None:
        """Take proposals along to the log. May lose them, may commit them twice; never reorders
        those of one call. The caller repeats what it does not see committed."""
        ...

    def read_index(self, done: Callable[[int | None], None]) -> None:
        """Calls `done` with the index up to which a linearizable read must have applied, or with
        None if there is no quorum for now."""
        ...

    def yield_lead(self, avoid: frozenset[PeerId]) -> None:
        """On the coordinator: let another member coordinate, if one can that is none of these."""
        ...

    def coordinator(self) -> PeerId | None: ...

    def contacts(self) -> Mapping[PeerId, int]:
        """On the coordinator: peer -> milliseconds since it was last heard. Elsewhere empty."""
        ...

    def full(self) -> frozenset[PeerId]:
        """On the coordinator: peers whose disks are full, as far as they said so."""
        ...

    def removed(self) -> tuple[PeerId, ...]:
        """Peers that don't belong to the group any more, for good, which is committed; the newest
        of them, oldest first."""
        ...
