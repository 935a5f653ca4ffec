"""Port `Ledger` on a group of raftos members: `Member` does what a group does, this is what a peer
wants of it: proposals into entries, entries out, reads, and whom it is that coordinates.

Members are known by address, peers by identity. Each message tells whose it is, and so does each
`PeerUp` in the ledger; an address keeps the first identity that was heard of.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.parts import Opener, cut
from p2psched.core.raft.fitting import as_fits, take_proposals
from p2psched.core.raft.timing import Timing
from p2psched.engines.raftos.log import Marker, MemberLog, Store
from p2psched.engines.raftos.member import Member as GroupMember
from p2psched.engines.raftos.member import Node, split
from p2psched.engines.raftos.roles import Leader
from p2psched.engines.raftos.secrecy import cryptor_of
from p2psched.engines.raftos.standing import Core, Standing
from p2psched.model.commands import Envelope, PeerUp
from p2psched.model.errors import Refused, Static
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.limits import PENDING_PROPOSALS_MAX
from p2psched.model.messages import Forward
from p2psched.model.raft import Entry, HardState, Member, Membership, RaftMessage, ReadAsk
from p2psched.ports.clock import Clock
from p2psched.ports.ledger import LedgerListener

log = logging.getLogger(__name__)

PART_BYTES: Final = 32 * 1024  # of commands in one entry
DELIVERY_MAX: Final = 64  # entries handed to the listener in one turn
READ_PATIENCE_S: Final = 1.0

_encode = msgspec.msgpack.Encoder().encode

Done = Callable[[int | None], None]


class RaftosLedger:
    """One member. Make it inside a running loop, `await open`, `start`, feed it `on_message`."""

    def __init__(
        self,
        *,
        me: PeerId,
        address: str,
        group: Sequence[str],
        secret: bytes,
        timing: Timing,
        store: Store,
        hard_state: HardState,
        entries: list[Entry],
        clock: Clock,
        rng: random.Random,
        send: Callable[[PeerId, RaftMessage | Forward], object],
        listener: LedgerListener,
        on_membership: Callable[[Membership], None],
        on_disk_failed: Callable[[Exception], None],
        on_bug: Callable[[Exception], None],
        marker: Marker | None = None,
    ) -> None:
        """`group`: addresses of all members, which are also where they take datagrams."""
        assert address in group, (address, group)
        self._clock = clock
        self._send = send
        self._listener = listener
        self._on_membership = on_membership
        self._on_disk_failed = on_disk_failed
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._group = tuple(sorted(group))
        self._peers: dict[str, PeerId] = {address: me}
        self._told_peers = 1
        self._strangers: dict[str, PeerId] = {}  # at addresses of others: of whom was told
        self._heard_ms: dict[str, int] = {}
        self._word_ms: int | None = None  # when we last heard whom we follow
        self.store: Final = store
        self._marker = marker
        self._log = MemberLog(store, hard_state, entries, self._on_synced)
        self._node = Node(split(address), cryptor_of(secret))
        for other in self._group:
            if other != address:
                self._node.update_cluster(split(other))
        self.member: Final = GroupMember(
            self._node, me=me, log=self._log, timing=timing, rng=rng, hooks=self
        )
        self._opener = Opener()
        self._delivered = 0
        self._proposals: deque[Envelope] = deque()
        self._asked: list[Done] = []  # in this turn
        self._confirming: list[tuple[int, int, Done]] = []  # round, index
        self._reads: dict[int, Done] = {}  # on their way to the leader
        self._next_read = 1
        self._told: tuple[PeerId | None, int] = (None, 0)  # who coordinates, in which term
        self._turn: asyncio.Handle | None = None
        self._stamp_base = (0, 0, 0)  # term, ledger time, our clock
        self._leaderless_since: int | None = clock.now_ms()
        self.leaderless_ms_max = 0
        self._stopped = False
        self._standing = Standing(self, timing)
        self.engine: Final = Core(self._standing)

    async def open(self) -> None:
        """Take part in the group. Raises Refused if the address can't be used."""
        try:
            await self._node.start()
        except OSError as error:
            address = self.member.id
            raise Refused(f"{address} can't take datagrams: {error.strerror}") from error

    def start(self) -> None:
        self._on_membership(self.membership(known=True))
        self.on_changed()

    def stop(self) -> None:
        """No more effects."""
        if self._stopped:
            return
        self._stopped = True
        self.member.stop()
        self._node.close()
        if self._marker is not None:
            self._marker.close()
        self.store.close()
        for done in (*self._asked, *(done for _, _, done in self._confirming)):
            done(None)
        for done in self._reads.values():
            done(None)

    # --- port -------------------------------------------------------------------------------------

    def append(self, envelopes: Sequence[Envelope]) -> None:
        room = PENDING_PROPOSALS_MAX - len(self._proposals)
        self._proposals.extend(envelopes[: max(0, room)])  # beyond it: proposers repeat
        self.on_changed()

    def read_index(self, done: Done) -> None:
        self._asked.append(done)
        self.on_changed()

    def coordinator(self) -> PeerId | None:
        leader = self.member.leader
        return None if leader is None else self._peers.get(leader)

    def contacts(self) -> Mapping[PeerId, int]:
        if not self._coordinates:
            return {}
        now_ms = self._clock.now_ms()
        return {self._peers[address]: now_ms - at for address, at in self._heard_ms.items()}

    def yield_lead(self, avoid: frozenset[PeerId]) -> None:
        """raftos knows no transfer: who leads goes on until it stops."""

    def word_age_ms(self) -> int | None:
        word_ms = self._word_ms
        if self._standing.is_leader:
            heard = sorted(self._heard_ms.values(), reverse=True)
            others = len(self._group) // 2  # that make a majority with us
            word_ms = heard[others - 1] if others else self._clock.now_ms()
        return None if word_ms is None else self._clock.now_ms() - word_ms

    def full(self) -> frozenset[PeerId]:
        """Nobody tells: a member whose disk is full stops."""
        return frozenset()

    def removed(self) -> tuple[PeerId, ...]:
        """The group is static."""
        return ()

    # --- as the embedded engine -------------------------------------------------------------------

    def on_message(self, sender: PeerId, message: RaftMessage | Forward) -> None:
        """What comes over the links of peers: proposals only."""
        del sender
        if isinstance(message, Forward) and self._standing.is_leader:
            self.append(message.envelopes)

    def add_member(self, member: Member) -> None:
        raise Static(
            f"{member.name or member.peer} can't join: the group of a raftos ledger is the one "
            "that all its peers were started with"
        )

    async def hand_over(self) -> None:
        """raftos knows no transfer: the others elect when they miss us."""

    def _on_synced(self) -> None:
        if self._marker is not None:
            self._marker.on_synced()

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()

    @property
    def size_bytes(self) -> int:
        return self.store.size_bytes

    @property
    def sync_ms(self) -> float:
        return self._log.sync_ms

    @property
    def syncs(self) -> int:
        return self._log.syncs

    def membership(self, *, known: bool = False) -> Membership:
        """All vote. Who was never heard of has a made-up identity, so that a majority is one."""
        members = [
            Member(self._peers.get(address) or _stand_in(address), "", address)
            for address in self._group
            if address in self._peers or not known
        ]
        return Membership(tuple(sorted(members, key=lambda member: member.peer)))

    # --- hooks of the member ----------------------------------------------------------------------

    def stamp(self) -> tuple[int, int]:
        term, now_ms = self._log.hard.term, self._clock.now_ms()
        if self._stamp_base[0] != term:
            self._stamp_base = (term, self._log.last_stamp_ms, now_ms)
        _, base_ms, since_ms = self._stamp_base
        return max(base_ms + now_ms - since_ms, self._log.last_stamp_ms), self._clock.wall_ms()

    def on_changed(self) -> None:
        if self._turn is None and not self._stopped:
            self._turn = self._loop.call_soon(self.member.guarded, self._on_turn)

    def on_heard(self, address: str, peer: PeerId) -> bool:
        if not self._note(address, peer):
            return False
        self._heard_ms[address] = self._clock.now_ms()
        if address == self.member.leader:
            self._word_ms = self._heard_ms[address]
        return True

    def peer_at(self, address: str) -> PeerId | None:
        return self._peers.get(address)

    def read(self, done: Done) -> None:
        """On the leader: an answer once a majority has answered a round that began later."""
        self.read_index(done)

    def on_read(self, read: int, index: int) -> None:
        done = self._reads.pop(read, None)
        if done is not None:
            done(None if index < 0 else index)

    def on_failed(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self._on_disk_failed(error)
        else:
            self._on_bug(error)

    def _note(self, address: str, peer: PeerId) -> bool:
        known = self._peers.setdefault(address, peer)
        if known != peer:
            if self._strangers.get(address) != peer:
                self._strangers[address] = peer
                told = {"address": address, "known": known, "peer": peer}
                log.critical("member-replaced", extra=told)
            return False
        if len(self._peers) > self._told_peers:
            self._told_peers = len(self._peers)
            self._on_membership(self.membership(known=True))
            self.on_changed()
        return True

    # --- a turn -----------------------------------------------------------------------------------

    def _on_turn(self) -> None:
        self._turn = None
        self._deliver()
        self._tell_coordinator()
        if self._coordinates:
            self._read_here()
            self._make_entries()
        else:
            self._read_there()
            self._forward()
        if self._delivered < self._log.commit:
            self.on_changed()

    @property
    def _coordinates(self) -> bool:
        return self._told[0] == self._peers[self.member.id] and self._standing.is_leader

    def _deliver(self) -> None:
        stop = min(self._log.commit, self._delivered + DELIVERY_MAX)
        batches = [self._open(e) for e in self._log.slice(self._delivered + 1, stop + 1)]
        self._delivered = stop
        if batches:
            self._listener.on_committed(batches)

    def _open(self, entry: Entry) -> Committed:
        batch = self._opener.open(entry)
        for envelope in batch.envelopes:
            command = envelope.command
            if isinstance(command, PeerUp) and command.info.address in self._group:
                self._note(command.info.address, command.info.peer)
        return batch

    def _tell_coordinator(self) -> None:
        role = self.member.state
        if isinstance(role, Leader) and self._delivered < role.first_index:
            return  # it speaks once all that came before is applied
        told = (self.coordinator(), self._standing.term)
        if told == self._told or (told[0] is None and self._told[0] is None):
            return
        self._told = told
        now_ms = self._clock.now_ms()
        if told[0] is None:
            self._leaderless_since = now_ms
        elif self._leaderless_since is not None:
            self.leaderless_ms_max = max(self.leaderless_ms_max, now_ms - self._leaderless_since)
            self._leaderless_since = None
        log.info("leader-changed", extra={"leader": told[0], "term": told[1]})
        self._listener.on_coordinator(told[0], is_self=told[0] == self._peers[self.member.id])

    def _read_here(self) -> None:
        leader = self.member.state
        assert isinstance(leader, Leader)
        if self._asked:
            asked, self._asked = self._asked, []
            leader.heartbeat(again=False)
            self._confirming += [(leader.round, self._log.commit, done) for done in asked]
        waiting, self._confirming = self._confirming, []
        for round_, index, done in waiting:
            if round_ <= leader.confirmed:
                done(index)
            else:
                self._confirming.append((round_, index, done))

    def _read_there(self) -> None:
        failed, self._confirming = self._confirming, []
        for _, _, done in failed:
            done(None)
        asked, self._asked = self._asked, []
        leader = self.member.leader
        for done in asked:
            if leader is None or leader == self.member.id:
                done(None)
                continue
            read, self._next_read = self._next_read, self._next_read + 1
            self._reads[read] = done
            self.member.send(leader, ReadAsk(self._log.hard.term, read))
            self._loop.call_later(READ_PATIENCE_S, self.on_read, read, -1)

    def _make_entries(self) -> None:
        leader = self.member.state
        assert isinstance(leader, Leader)
        while self._proposals:
            proposals, encoded = take_proposals(self._proposals)
            decorated = self._listener.decorate(proposals)
            encoded += as_fits(encoded, decorated[len(proposals) :])
            payload = _encode([msgspec.Raw(data) for data in encoded])
            leader.put(list(cut(payload, PART_BYTES)))

    def _forward(self) -> None:
        leader = self.coordinator()
        while self._proposals and self.member.leader != self.member.id:
            proposals, _ = take_proposals(self._proposals)
            if leader is not None:  # else they are dropped: proposers repeat on a new leader
                self._send(leader, Forward(proposals))


def _stand_in(address: str) -> PeerId:
    return PeerId(hashlib.sha256(address.encode()).hexdigest()[:32])
