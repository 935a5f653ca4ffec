"""One member of a group of raftos, as released and hardened, driven by hand: no sockets, and time
stands still. Others are 1, 2, ...; terms and entries are what a test says."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import msgspec
import raftos.conf
import raftos.serializers
import raftos.state

from p2psched.core.raft.timing import Timing
from p2psched.engines.raftos.log import MemberLog
from p2psched.engines.raftos.member import Member, Node
from p2psched.engines.raftos.roles import Leader
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    RaftMessage,
    VoteReply,
    VoteRequest,
)
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk

HOST: Final = "127.0.0.1"
PORT: Final = 9000
STILL_S: Final = 1_000_000  # no timer of this member comes due
TIMING: Final = Timing(STILL_S, 3 * STILL_S, 4 * STILL_S)


def sender(number: int) -> tuple[str, int]:
    return HOST, PORT + number


class Driven(ABC):
    """Number 0 of a group."""

    size: int

    @abstractmethod
    def restart(self) -> None: ...

    @abstractmethod
    def campaign(self) -> int:
        """The election timeout passes; the term that it stands for."""

    @abstractmethod
    def give_up(self) -> None:
        """The next one passes: nobody has won."""

    @abstractmethod
    async def asks_for_vote(self, number: int, term: int) -> bool:
        """Another one, with an empty log. True if it gets the vote."""

    @abstractmethod
    def grants(self, number: int, term: int) -> None: ...

    @abstractmethod
    def appends(self, number: int, term: int, prev: int, terms: list[int], commit: int) -> None:
        """Entries of these terms behind entry `prev`, which is of the first of them or none."""

    @abstractmethod
    def acks(self, number: int, term: int, match: int) -> None: ...

    @abstractmethod
    def write(self, value: int) -> Callable[[], bool]:
        """As the leader. What is returned tells whether it was acknowledged."""

    @property
    @abstractmethod
    def leads(self) -> bool: ...

    @property
    @abstractmethod
    def length(self) -> int: ...

    @property
    @abstractmethod
    def commit(self) -> int: ...

    def elect(self) -> int:
        """Everybody is for it."""
        term = self.campaign()
        for number in range(1, self.size):
            self.grants(number, term)
        assert self.leads
        return term


class Stock(Driven):
    """As released, with one repair: a name that Python has moved since."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self._sent: list[dict[str, object]] = []
        raftos.conf.config.log_path = f"{folder}/"
        raftos.conf.config.serializer = raftos.serializers.JSONSerializer
        raftos.conf.config.heartbeat_interval = STILL_S
        raftos.conf.config.step_down_interval = STILL_S
        raftos.conf.config.election_interval = (STILL_S, STILL_S)
        if not hasattr(asyncio.futures, "InvalidStateError"):
            setattr(asyncio.futures, "InvalidStateError", asyncio.InvalidStateError)  # noqa: B010
        self._server = SimpleNamespace(
            host=HOST,
            port=PORT,
            loop=asyncio.get_running_loop(),
            cluster={sender(number) for number in range(1, size)},
            cluster_count=size - 1,
            send=self._send,
            broadcast=lambda data: None,
        )
        self.restart()

    async def _send(self, data: dict[str, object], destination: object) -> None:
        self._sent.append(data)

    def restart(self) -> None:
        self._state = raftos.state.State(self._server)
        self._state.start()

    def campaign(self) -> int:
        self._state.to_candidate()
        term: int = self._state.storage.term
        return term

    def give_up(self) -> None:
        self._state.state.election_timer.callback()

    def _hear(self, number: int, type_: str, **fields: object) -> None:
        self._state.request_handler({"type": type_, "sender": sender(number), **fields})

    async def asks_for_vote(self, number: int, term: int) -> bool:
        self._sent.clear()
        self._hear(
            number,
            "request_vote",
            term=term,
            candidate_id=f"{HOST}:{PORT + number}",
            last_log_index=0,
            last_log_term=0,
        )
        await asyncio.sleep(0)
        return any(data.get("vote_granted") is True for data in self._sent)

    def grants(self, number: int, term: int) -> None:
        self._hear(number, "request_vote_response", term=term, vote_granted=True)

    def appends(self, number: int, term: int, prev: int, terms: list[int], commit: int) -> None:
        for position, of in enumerate(terms):  # always one entry in a message
            self._hear(
                number,
                "append_entries",
                term=term,
                leader_id=f"{HOST}:{PORT + number}",
                prev_log_index=prev + position,
                prev_log_term=of if prev + position else 0,
                commit_index=commit,
                request_id=1,
                entries=[{"term": of, "command": {"key": prev + position + 1}}],
            )

    def acks(self, number: int, term: int, match: int) -> None:
        self._hear(
            number,
            "append_entries_response",
            term=term,
            success=True,
            last_log_index=match,
            request_id=1,
        )

    def write(self, value: int) -> Callable[[], bool]:
        writing = self._state.state.execute_command({"key": value})
        done: Callable[[], bool] = asyncio.ensure_future(writing).done
        return done

    @property
    def leads(self) -> bool:
        return isinstance(self._state.state, raftos.state.Leader)

    @property
    def length(self) -> int:
        return len(self._state.log)

    @property
    def commit(self) -> int:
        index: int = self._state.log.commit_index
        return index


class Hardened(Driven):
    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self._disk = SimDisk(random.Random(str(folder)))
        self._peers = {
            f"{HOST}:{PORT + number}": PeerId(f"{number:032x}") for number in range(size)
        }
        self.failures: list[Exception] = []
        self.restart()

    # --- hooks ---

    def stamp(self) -> tuple[int, int]:
        return 0, 0

    def on_changed(self) -> None: ...

    def on_heard(self, address: str, peer: PeerId) -> bool:
        return True

    def peer_at(self, address: str) -> PeerId | None:
        return self._peers.get(address)

    def read(self, done: Callable[[int | None], None]) -> None: ...

    def on_read(self, read: int, index: int) -> None: ...

    def on_failed(self, error: Exception) -> None:
        self.failures.append(error)

    # --- by hand ---

    def restart(self) -> None:
        self._disk.crash()
        store, found = LogStore.open(self._disk)
        self._log = MemberLog(store, found.hard_state, found.entries, lambda: None)
        self._node = Node(sender(0), raftos.cryptors.DummyCryptor(None))
        for number in range(1, self.size):
            self._node.update_cluster(sender(number))
        self._member = Member(
            self._node,
            me=self._peers[f"{HOST}:{PORT}"],
            log=self._log,
            timing=TIMING,
            rng=random.Random(0),
            hooks=self,
        )
        self._member.start()

    def campaign(self) -> int:
        self._member.guarded(self._member.to_candidate)
        return self._log.hard.term

    def give_up(self) -> None:
        self._member.state.election_timer.callback()

    def _hear(self, number: int, message: RaftMessage) -> None:
        data: dict[str, object] = {
            "sender": sender(number),
            "peer": self._peers[f"{HOST}:{PORT + number}"],
            "message": msgspec.msgpack.encode(message),
        }
        self._member.request_handler(data)
        assert not self.failures

    def _sent(self) -> list[RaftMessage]:
        messages = []
        while not self._node.requests.empty():
            data = self._node.requests.get_nowait()["data"]
            assert isinstance(data, dict)
            messages.append(msgspec.msgpack.decode(data["message"], type=RaftMessage))
        return messages

    async def asks_for_vote(self, number: int, term: int) -> bool:
        self._sent()
        self._hear(number, VoteRequest(term, 0, 0, False))
        return any(isinstance(m, VoteReply) and m.granted for m in self._sent())

    def grants(self, number: int, term: int) -> None:
        self._hear(number, VoteReply(term, True, False))

    def appends(self, number: int, term: int, prev: int, terms: list[int], commit: int) -> None:
        entries = tuple(
            Entry(prev + 1 + position, of, EntryKind.COMMANDS, 0, 0, b"\x90")
            for position, of in enumerate(terms)
        )
        self._hear(number, Append(term, prev, terms[0] if prev else 0, commit, 1, entries))

    def acks(self, number: int, term: int, match: int) -> None:
        self._hear(number, AppendReply(term, 1, True, match))

    def write(self, value: int) -> Callable[[], bool]:
        leader = self._member.state
        assert isinstance(leader, Leader)
        leader.put([(EntryKind.COMMANDS, b"\x90")])
        index = self._log.last_index
        return lambda: self._log.commit >= index

    @property
    def leads(self) -> bool:
        return isinstance(self._member.state, Leader)

    @property
    def length(self) -> int:
        return self._log.last_index

    @property
    def commit(self) -> int:
        return self._log.commit
