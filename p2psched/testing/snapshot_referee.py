"""What must hold of snapshots: equal states are equal bytes on every peer, a restored machine is
the one that it was made of, and nobody says that it has one before its disk has.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Envelope
from p2psched.model.raft import Snapshot, SnapshotReply
from p2psched.store.log import LogStore
from p2psched.store.snapshots import digest_of
from p2psched.testing.promises import demand
from p2psched.testing.sim_peer import SimPeer

ANY_LEVEL: Final = 1 << 30  # it reads what whatever version wrote
ASKED_MAX: Final = 100  # of the newest proposals; far fewer than a machine must remember


class SnapshotReferee:
    """`committed`: term and checksum of each entry, from index 1. `hashes`: of states. `once`: what
    may act once only, with the index of the entry that brought it, in order."""

    def __init__(
        self,
        committed: Sequence[tuple[int, int]],
        hashes: dict[int, str],
        once: Sequence[tuple[int, Envelope]],
    ) -> None:
        self._committed = committed
        self._hashes = hashes
        self._once = once
        self.made: dict[int, Snapshot] = {}  # by index

    def on_saving(self, peer: SimPeer, snapshot: Snapshot) -> None:
        demand(
            snapshot.index <= len(self._committed)
            and self._committed[snapshot.index - 1][0] == snapshot.term,
            "P4",
            f"peer {peer.number} makes a snapshot of entry {snapshot.index}, which isn't committed",
        )
        known = self.made.setdefault(snapshot.index, snapshot)
        demand(known == snapshot, "P14", f"snapshots of entry {snapshot.index} differ")

    def on_restored(self, peer: SimPeer, snapshot: Snapshot, damaged: tuple[str, ...]) -> None:
        where = f"of entry {snapshot.index} on peer {peer.number}"
        demand(
            not damaged or peer.is_rotten,
            "P1",
            f"a snapshot newer than that {where} did not reach the disk",
        )
        demand(
            self.made.get(snapshot.index) == snapshot, "P14", f"nobody made the snapshot {where}"
        )
        machine = peer.scheduler.machine
        known = self._hashes.get(snapshot.index)
        demand(machine.state_hash == known, "P14", f"another state than that {where}")
        state = encode_machine(machine)
        same = digest_of(state) == snapshot.digest
        demand(same and machine.applied_index == snapshot.index, "P14", f"a changed state {where}")

        self._ask_of_repeats(state, snapshot.index, where)

    def _ask_of_repeats(self, state: bytes, index: int, where: str) -> None:
        """A proposal that acted before must be known, should it be committed again."""
        twin = Machine(ANY_LEVEL)
        restore_machine(twin, state)
        before = [envelope for brought, envelope in self._once if brought <= index]
        known = all(map(twin._is_repeat, before[-ASKED_MAX:]))
        demand(known, "P14", f"a proposal is forgotten {where}")

    def on_said(self, peer: SimPeer, reply: SnapshotReply) -> None:
        """Were the power to go now, the disk would still have it."""
        if not reply.done or peer.is_rotten:
            return
        twin = peer.disk.copy(random.Random(reply.index))
        twin.crash()
        _, found = LogStore.open(twin)
        known = found.snapshot.index if found.snapshot is not None else 0
        terms = {entry.index: entry.term for entry in found.entries}
        term = self._committed[reply.index - 1][0]
        demand(
            known >= reply.index or terms.get(reply.index) == term,
            "P4",
            f"peer {peer.number} says that it has entries up to {reply.index}, and its disk hasn't",
        )
