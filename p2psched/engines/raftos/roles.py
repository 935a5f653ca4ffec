"""What a member of the group does as follower, candidate and leader, in the places of raftos's own
roles. Votes are counted by member and term, entries are compared before they are dropped, and
nothing is answered before it is on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, assert_never

from raftos import state as stock
from raftos.timer import Timer

from p2psched.engines.raftos.log import MemberLog
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    ReadAsk,
    ReadReply,
    VoteReply,
    VoteRequest,
)

if TYPE_CHECKING:
    from p2psched.engines.raftos.member import GroupMessage, Member

# Of entries in one datagram, without their heads: with its encryption it must stay below 64 KiB.
APPEND_BYTES_MAX: Final = 40 * 1024
HEAD_BYTES: Final = 40
APPEND_ENTRIES_MAX: Final = APPEND_BYTES_MAX // HEAD_BYTES


class Role(stock.BaseState, ABC):
    """What is the same in all of them."""

    log: MemberLog

    def __init__(self, member: Member) -> None:
        # Not raftos's own, which asks for its storage.
        self.state = self.member = member
        self.log = member.log
        self.id = member.id
        self.loop = member.loop

    def timer(self, interval: float | Callable[[], float], then: Callable[[], None]) -> Timer:
        return Timer(interval, lambda: self.member.guarded(self._run, then))

    def _run(self, then: Callable[[], None]) -> None:
        if self.member.state is self:
            then()

    def on_message(self, sender: str, message: GroupMessage) -> None:
        """Of this term, from another member of the group."""
        match message:
            case VoteRequest():
                self.on_vote_request(sender, message)
            case VoteReply():
                self.on_vote_reply(sender, message)
            case Append():
                self.on_append(sender, message)
            case AppendReply():
                self.on_append_reply(sender, message)
            case ReadAsk():
                self.on_read_ask(sender, message)
            case ReadReply():
                self.member.on_read(message.read, message.index)
            case _:
                assert_never(message)

    def on_vote_request(self, sender: str, message: VoteRequest) -> None:
        del message
        self.member.send(sender, VoteReply(self.log.hard.term, False, False))

    def on_vote_reply(self, sender: str, message: VoteReply) -> None:
        """Too late."""

    @abstractmethod
    def on_append(self, sender: str, message: Append) -> None:
        """Of a leader, or of one that was."""

    def on_append_reply(self, sender: str, message: AppendReply) -> None:
        """Too late."""

    def on_read_ask(self, sender: str, message: ReadAsk) -> None:
        self.member.send(sender, ReadReply(self.log.hard.term, message.read, -1))


class Follower(Role):
    def start(self) -> None:
        self.election_timer = self.timer(self.member.election_interval, self.member.to_candidate)
        self.election_timer.start()

    def stop(self) -> None:
        self.election_timer.stop()

    def on_vote_request(self, sender: str, message: VoteRequest) -> None:
        log = self.log
        candidate = self.member.peer_at(sender)
        is_up_to_date = (message.last_term, message.last_index) >= (log.last_term, log.last_index)
        granted = is_up_to_date and log.hard.vote in (None, candidate)
        if granted:
            log.promise(HardState(log.hard.term, candidate))
            self.election_timer.reset()
        self.member.send(sender, VoteReply(log.hard.term, granted, False))

    def on_append(self, sender: str, message: Append) -> None:
        self.election_timer.reset()
        self.member.set_leader(sender)
        log, prev = self.log, message.prev_index
        if log.term_at(prev) != message.prev_term:
            look = min(prev, log.last_index + 1)
            reply = AppendReply(log.hard.term, message.round, False, conflict_index=look)
            self.member.send(sender, reply)
            return
        for position, entry in enumerate(message.entries):
            if log.term_at(entry.index) != entry.term:  # what is before it matches: it stays
                log.put(message.entries[position:])
                break
        match = prev + len(message.entries)
        self.member.commit(min(message.commit, match))
        self.member.send(sender, AppendReply(log.hard.term, message.round, True, match))


class Candidate(Role):
    def start(self) -> None:
        log, member = self.log, self.member
        log.promise(HardState(log.hard.term + 1, member.me))
        self._votes = {self.id}
        self.election_timer = self.timer(member.election_interval, member.to_candidate)
        self.election_timer.start()
        member.broadcast(VoteRequest(log.hard.term, log.last_index, log.last_term, False))
        if member.is_majority(len(self._votes)):
            self.loop.call_soon(member.guarded, self._run, member.to_leader)

    def stop(self) -> None:
        self.election_timer.stop()

    def on_vote_reply(self, sender: str, message: VoteReply) -> None:
        if message.granted:
            self._votes.add(sender)
            if self.member.is_majority(len(self._votes)):
                self.member.to_leader()

    def on_append(self, sender: str, message: Append) -> None:
        self.member.to_follower()
        self.member.state.on_append(sender, message)


class Leader(Role):
    """Commits by an entry of its own term only, and steps down if it hears no majority."""

    def start(self) -> None:
        timing, others = self.member.timing, self.member.cluster
        self.round = 0
        self._next = dict.fromkeys(others, self.log.last_index + 1)
        self._match = dict.fromkeys(others, 0)
        self._answered = dict.fromkeys(others, 0)  # member -> newest round that it has answered
        self._on_its_way: set[str] = set()  # to whom entries are
        self.confirmed = 0  # newest round that a majority has answered
        self.heartbeat_timer = self.timer(timing.heartbeat_ms / 1000, self.heartbeat)
        self.step_down_timer = self.timer(timing.election_ms_min / 1000, self.member.to_follower)
        self.heartbeat_timer.start()
        self.step_down_timer.start()
        self.first_index = self.log.last_index + 1
        self.put([(EntryKind.NOOP, b"")])
        self.heartbeat()

    def stop(self) -> None:
        self.heartbeat_timer.stop()
        self.step_down_timer.stop()

    @property
    def is_ready(self) -> bool:
        """True once everything of earlier leaders is committed."""
        return self.log.commit >= self.first_index

    def put(self, contents: list[tuple[EntryKind, bytes]]) -> None:
        """Entries of our own: on our disk, then on their way."""
        first, term = self.log.last_index + 1, self.log.hard.term
        stamp_ms, wall_ms = self.member.stamp()
        self.log.put(
            [
                Entry(index, term, kind, stamp_ms, wall_ms, payload)
                for index, (kind, payload) in enumerate(contents, start=first)
            ]
        )
        for other in self._next:
            if other not in self._on_its_way:
                self._send_to(other)
        self._look_for_commit()

    def heartbeat(self, *, again: bool = True) -> None:
        """A new round. What may have been lost on its way is sent again with it, or not."""
        self.round += 1
        for other in self._next:
            if again or other not in self._on_its_way:
                self._send_to(other)
            else:
                self._append_to(other, self._match[other], [])
        self._look_for_majority()

    def _send_to(self, other: str) -> None:
        """As much as one datagram takes."""
        log, prev = self.log, self._next[other] - 1
        entries: list[Entry] = []
        size = 0
        for entry in log.slice(prev + 1, min(log.last_index, prev + APPEND_ENTRIES_MAX) + 1):
            size += HEAD_BYTES + len(entry.payload)
            if entries and size > APPEND_BYTES_MAX:
                break
            entries.append(entry)
        if entries:
            self._on_its_way.add(other)
        self._append_to(other, prev, entries)

    def _append_to(self, other: str, prev: int, entries: list[Entry]) -> None:
        log = self.log
        prev_term = log.term_at(prev)
        assert prev_term is not None, prev
        term, commit = log.hard.term, log.commit
        append = Append(term, prev, prev_term, commit, self.round, tuple(entries))
        self.member.send(other, append)

    def on_append(self, sender: str, message: Append) -> None:
        raise AssertionError(f"{sender} leads term {message.term}, and so do we")

    def on_append_reply(self, sender: str, message: AppendReply) -> None:
        self._on_its_way.discard(sender)
        self._answered[sender] = max(self._answered[sender], min(message.round, self.round))
        if message.ok:
            self._match[sender] = max(self._match[sender], message.match)
            self._next[sender] = self._match[sender] + 1
            self._look_for_commit()
        else:
            before = min(self._next[sender] - 1, message.conflict_index)
            self._next[sender] = max(self._match[sender] + 1, before, 1)
        self._look_for_majority()
        if self.log.last_index >= self._next[sender]:
            self._send_to(sender)

    def on_read_ask(self, sender: str, message: ReadAsk) -> None:
        term = self.log.hard.term

        def done(index: int | None) -> None:
            answer = ReadReply(term, message.read, -1 if index is None else index)
            self.member.send(sender, answer)

        self.member.read(done)

    def _of_majority(self, others: dict[str, int], own: int) -> int:
        """The largest that a majority has reached, ourselves with `own` among them."""
        reached = sorted((*others.values(), own), reverse=True)
        return reached[len(reached) // 2]

    def _look_for_commit(self) -> None:
        index = self._of_majority(self._match, self.log.last_index)
        if self.log.term_at(index) == self.log.hard.term:
            self.member.commit(index)

    def _look_for_majority(self) -> None:
        confirmed = self._of_majority(self._answered, self.round)
        if confirmed > self.confirmed:
            self.confirmed = confirmed
            self.step_down_timer.reset()
            self.member.on_confirmed()
