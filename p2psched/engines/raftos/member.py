"""raftos's node and its shell around the roles: with a quorum that counts itself, the rules of
terms in one place, and a transport that drops what it can't read.

Several may live in one process: unlike raftos's own, they share nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from cryptography.fernet import InvalidToken
from raftos import server as stock_server
from raftos import state as stock
from raftos.cryptors import BaseCryptor
from raftos.network import UDPProtocol

from p2psched.core.raft.timing import Timing
from p2psched.engines.raftos import roles
from p2psched.engines.raftos.log import MemberLog
from p2psched.model.ids import PeerId, is_id
from p2psched.model.raft import (
    Append,
    AppendReply,
    HardState,
    ReadAsk,
    ReadReply,
    VoteReply,
    VoteRequest,
)

GroupMessage = VoteRequest | VoteReply | Append | AppendReply | ReadAsk | ReadReply


class _Said(msgspec.Struct, frozen=True):
    """What is in a datagram."""

    peer: PeerId
    message: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(GroupMessage).decode


class Hooks(Protocol):
    """What a member tells whoever made it. `guarded` catches what these raise."""

    def stamp(self) -> tuple[int, int]: ...

    def on_changed(self) -> None:
        """Of the role, the leader, the commit or a confirmed round: look again, soon."""
        ...

    def on_heard(self, address: str, peer: PeerId) -> bool:
        """False if somebody else is known to be at this address."""
        ...

    def peer_at(self, address: str) -> PeerId | None: ...

    def read(self, done: Callable[[int | None], None]) -> None: ...

    def on_read(self, read: int, index: int) -> None: ...

    def on_failed(self, error: Exception) -> None: ...


class MsgpackSerializer:
    """raftos's own ones either can't carry bytes or don't work with today's msgpack."""

    @staticmethod
    def pack(data: Mapping[str, object]) -> bytes:
        return _encode(data)

    @staticmethod
    def unpack(data: bytes) -> dict[str, object]:
        return msgspec.msgpack.decode(data, type=dict[str, object])


class Transport(UDPProtocol):
    _sender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._sender = asyncio.current_task()
        await super().start()

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        try:
            super().datagram_received(data, sender)
        except (InvalidToken, ValueError):  # of somebody who doesn't know the key, or damaged
            return

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._sender is not None:
            self._sender.cancel()

    def error_received(self, exc: Exception) -> None:
        """Nobody listens at an address: its member is down. What was lost is sent again."""


class Node(stock_server.Node):
    def __init__(self, address: tuple[str, int], cryptor: BaseCryptor) -> None:
        # As raftos's own, whose queue doesn't work since Python 3.10, and which tells of itself to
        # the whole process.
        self.host, self.port = address
        self.cluster: set[tuple[str, int]] = set()
        self.loop = asyncio.get_running_loop()
        self.requests: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self._cryptor = cryptor
        self.transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        protocol = Transport(
            queue=self.requests,
            request_handler=self.request_handler,
            loop=self.loop,
            serializer=MsgpackSerializer,
            cryptor=self._cryptor,
        )
        local = (self.host, self.port)
        self.transport, _ = await self.loop.create_datagram_endpoint(protocol, local_addr=local)
        self.state.start()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Member(stock.State):
    def __init__(
        self,
        server: Node,
        *,
        me: PeerId,
        log: MemberLog,
        timing: Timing,
        rng: random.Random,
        hooks: Hooks,
    ) -> None:
        # Not raftos's own, which makes files and shares its leader with the whole process.
        self.server = server
        server.state = self
        self.id = self._get_id(server.host, server.port)
        self.loop = server.loop
        self.me = me
        self.log = log
        self.timing = timing
        self.rng = rng
        self.leader: str | None = None  # address
        self._hooks = hooks
        self._runs = False
        self.stamp, self.read, self.on_read = hooks.stamp, hooks.read, hooks.on_read
        self.on_confirmed = hooks.on_changed
        self.state: roles.Role = roles.Follower(self)

    def start(self) -> None:
        self._runs = True
        self.state.start()

    def stop(self) -> None:
        if self._runs:
            self._runs = False
            self.state.stop()

    def guarded(self, call: Callable[..., None], *arguments: object) -> None:
        """Every entrance: a member that failed, or was stopped, does nothing any more."""
        if not self._runs:
            return
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 (whatever it is, this member must not go on)
            self.stop()
            self._hooks.on_failed(error)

    # --- the group --------------------------------------------------------------------------------

    def is_majority(self, count: int) -> bool:
        return count > (len(self.server.cluster) + 1) // 2

    def peer_at(self, address: str) -> PeerId:
        peer = self._hooks.peer_at(address)
        assert peer is not None, address  # it just spoke
        return peer

    # --- messages ---------------------------------------------------------------------------------

    def send(self, address: str, message: GroupMessage) -> None:
        self.server.requests.put_nowait(
            {"data": {"peer": self.me, "message": _encode(message)}, "destination": split(address)}
        )

    def election_interval(self) -> float:
        return self.rng.uniform(self.timing.election_ms_min, self.timing.election_ms_max) / 1000

    def broadcast(self, message: GroupMessage) -> None:
        for address in self.cluster:
            self.send(address, message)

    def request_handler(self, data: dict[str, object]) -> None:
        self.guarded(self._on_datagram, data)

    def _on_datagram(self, data: dict[str, object]) -> None:
        sender = data.get("sender")  # raftos puts it in
        assert isinstance(sender, tuple), sender
        address: str = self._get_id(*sender[:2])
        try:
            said = msgspec.convert(data, _Said)
            message = _decode(said.message)
        except msgspec.ValidationError:
            return
        if address not in self.cluster or not is_id(said.peer):
            return
        if not self._hooks.on_heard(address, said.peer):
            return
        term = self.log.hard.term
        if message.term < term:
            self._refuse(address, message)
            return
        if message.term > term:
            self.log.promise(HardState(message.term))
            if isinstance(self.state, roles.Follower):
                self.set_leader(None)
            else:
                self.to_follower()
        self.state.on_message(address, message)

    def _refuse(self, address: str, message: GroupMessage) -> None:
        """Whoever asks in an old term is told the new one; old answers are worth nothing."""
        term = self.log.hard.term
        match message:
            case VoteRequest():
                self.send(address, VoteReply(term, False, False))
            case Append():
                self.send(address, AppendReply(term, message.round, False))
            case ReadAsk():
                self.send(address, ReadReply(term, message.read, -1))
            case VoteReply() | AppendReply() | ReadReply():
                pass

    # --- roles ------------------------------------------------------------------------------------

    def set_leader(self, leader: str | None) -> None:
        if leader != self.leader:
            self.leader = leader
            self._hooks.on_changed()

    def to_candidate(self) -> None:
        self.set_leader(None)
        self._change_state(roles.Candidate)

    def to_leader(self) -> None:
        self.set_leader(self.id)
        self._change_state(roles.Leader)

    def to_follower(self) -> None:
        self.set_leader(None)
        self._change_state(roles.Follower)

    def commit(self, index: int) -> None:
        if index > self.log.commit:
            self.log.commit = index
            self._hooks.on_changed()


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
