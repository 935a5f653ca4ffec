"""How scripts write what peers store and say: one line each, without times and random numbers.

An entry is `index@term what`, so that two logs can be compared at a glance. A message that this
file doesn't know is written with all its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from p2psched.core.raft.effects import Persist
from p2psched.core.raft.replication import NO_ANSWER
from p2psched.core.raft.state import decode_membership
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Membership,
    ReadAsk,
    ReadReply,
    Snapshot,
    SnapshotPiece,
    SnapshotReply,
    VoteReply,
    VoteRequest,
)

Payload = Callable[[bytes], str]  # says what an entry of commands holds


def names(members: Membership) -> str:
    """Voters, then learners; an address that isn't the usual one is told."""
    voters = " ".join(m.peer + _moved(m.peer, m.address) for m in members.voters)
    learners = " ".join(m.peer + _moved(m.peer, m.address) for m in members.learners)
    return f"voters {voters}" + (f", learners {learners}" if learners else "")


def usual_address(peer: str) -> str:
    return f"{peer}:1"


def _moved(peer: str, address: str) -> str:
    return "" if address == usual_address(peer) else f" ({address})"


def entry_words(entry: Entry, payload: Payload) -> str:
    match entry.kind:
        case EntryKind.NOOP:
            what = "no-op"
        case EntryKind.MEMBERSHIP:
            what = names(decode_membership(entry))
        case EntryKind.COMMANDS:
            what = payload(entry.payload)
    return f"{entry.index}@{entry.term} {what}"


def entries_words(entries: Iterable[Entry], payload: Payload) -> str:
    return ", ".join(entry_words(entry, payload) for entry in entries)


def message_words(message: msgspec.Struct, payload: Payload) -> str:
    """What is said, with everything that the answer depends on."""
    match message:
        case VoteRequest(term=term, last_index=index, last_term=last_term, pre=pre):
            what = "would you vote for me" if pre else "vote for me"
            return f"{what} in term {term}? my log ends at {index}@{last_term}"
        case VoteReply(term=term, granted=granted, pre=pre):
            what = "I would" if pre else "my vote"
            return f"{what}, term {term}" if granted else f"no, term {term}"
        case Append():
            return _append(message, payload)
        case AppendReply(ok=True, term=term, round=number, match=match):
            return f"have {match}, term {term}, round {number}"
        case AppendReply(term=term, match=match, conflict_index=index, conflict_term=conflict):
            hint = f", look at {index}" + (f" (term {conflict})" if conflict else "")
            return f"refuse after {match}, term {term}" + (hint if index else "")
        case ReadAsk(term=term):
            return f"up to where must I read? term {term}"
        case ReadReply(term=term, index=index):
            return f"read up to {index}, term {term}" if index >= 0 else f"no, term {term}"
        case SnapshotPiece() | SnapshotReply():
            return _snapshot(message)
    fields = (f"{name} {getattr(message, name)}" for name in message.__struct_fields__)
    return f"{type(message).__name__} {', '.join(fields)}"


def _snapshot(message: SnapshotPiece | SnapshotReply) -> str:
    match message:
        case SnapshotPiece(term=term, snapshot=snapshot, offset=offset, data=data):
            whole = offset + len(data) == snapshot.size
            size = "all" if whole and not offset else f"{len(data)} bytes from {offset}"
            return f"snapshot {snapshot_words(snapshot)}: {size}, term {term}"
        case SnapshotReply(term=term, index=index, done=True):
            return f"have snapshot {index}, term {term}"
        case SnapshotReply(term=term, index=index, offset=offset):
            return f"want snapshot {index} from byte {offset}, term {term}"


def _append(message: Append, payload: Payload) -> str:
    where = f"after {message.prev_index}@{message.prev_term}"
    tail = f"; term {message.term}, committed {message.commit}"
    tail += "" if message.round == NO_ANSWER else f", round {message.round}"
    if message.entries:
        return f"append {entries_words(message.entries, payload)} {where}{tail}"
    return f"{'news' if message.round == NO_ANSWER else 'heartbeat'} {where}{tail}"


def snapshot_words(snapshot: Snapshot) -> str:
    return f"{snapshot.index}@{snapshot.term}"


def persist_words(persist: Persist, payload: Payload) -> str:
    """What a peer writes in one go."""
    parts = []
    if persist.hard_state is not None:
        vote = persist.hard_state.vote
        parts.append(f"term {persist.hard_state.term}, " + (f"vote {vote}" if vote else "no vote"))
    if persist.truncate_from is not None:
        parts.append(f"nothing from {persist.truncate_from} on")
    if persist.entries:
        parts.append(entries_words(persist.entries, payload))
    if persist.piece is not None:
        parts.append(f"a piece of snapshot {snapshot_words(persist.piece.snapshot)}")
    if persist.install is not None:
        parts.append(f"snapshot {snapshot_words(persist.install)} in place of its log")
    return "; ".join(parts)
