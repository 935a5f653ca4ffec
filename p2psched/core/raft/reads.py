"""Linearizable reads without a log entry (ReadIndex, section 6.4).

The leader must have committed in its own term, then hear a majority answer a heartbeat that it
sent after the read came in: then no other leader can have committed anything newer before it.
"""

from __future__ import annotations

from p2psched.core.raft.effects import ReadReady
from p2psched.core.raft.replication import broadcast
from p2psched.core.raft.state import LEADER, RaftState, WaitingRead
from p2psched.model.ids import PeerId
from p2psched.model.raft import ReadAsk, ReadReply


def on_read(s: RaftState, read: int) -> None:
    if s.role is LEADER:
        _start(s, read, None)
    elif s.leader is None:
        s.emit(ReadReady(read, None))
    else:
        s.send(s.leader, ReadAsk(s.term, read))


def on_read_ask(s: RaftState, sender: PeerId, ask: ReadAsk) -> None:
    if s.role is LEADER:
        _start(s, ask.read, sender)
    else:
        s.send(sender, ReadReply(s.term, ask.read, -1))


def on_read_reply(s: RaftState, reply: ReadReply) -> None:
    s.emit(ReadReady(reply.read, None if reply.index < 0 else reply.index))


def _start(s: RaftState, read: int, asker: PeerId | None) -> None:
    if s.commit < s.leading_from:  # not yet committed in our term: what is older may be unknown
        s.answer_read(WaitingRead(read, asker, 0, 0), None)
        return
    broadcast(s, heartbeat=True)
    s.reads.append(WaitingRead(read, asker, s.commit, s.round))
    answer_confirmed(s)


def answer_confirmed(s: RaftState) -> None:
    """Answer the reads whose round a majority has confirmed."""
    while s.reads:
        oldest = s.reads[0]
        confirmed = [peer for peer, p in s.progress.items() if p.round >= oldest.round]
        if not s.is_majority([s.me, *confirmed]):
            return
        s.reads.pop(0)
        s.answer_read(oldest, oldest.index)
