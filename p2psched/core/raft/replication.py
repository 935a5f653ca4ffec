"""Replication and commit (sections 5.3, 5.4).

A follower never drops an entry that agrees with the leader's, and says `match` only for what is on
its disk. A leader counts replicas only for entries of its own term. Appends are pipelined once a
follower's log is known to fit (`Progress` says how many); a refused or lost one goes back to
probing with one at a time. A follower that is silent gets heartbeats and nothing else, so that it
costs nothing per entry; one that has to wait gets the rest when it answers.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.raft import regain, sparing
from p2psched.core.raft.effects import Commit, LeaderChanged
from p2psched.core.raft.pieces import send_pieces
from p2psched.core.raft.progress import Progress
from p2psched.core.raft.state import LEADER, Concerned, RaftState, Role
from p2psched.model.ids import PeerId
from p2psched.model.limits import KIB
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind

APPEND_BYTES_MAX: Final = 512 * KIB  # of entries in one message, unless one entry is larger
APPEND_ENTRIES_MAX: Final = 256
ROUND_TRIP_WEIGHT: Final = 0.2  # of the newest in the moving average
NO_ANSWER: Final = 0  # the round of an append that only tells the commit index; rounds start at 1

# --- leader ---------------------------------------------------------------------------------------


def append_own(
    s: RaftState,
    kind: EntryKind,
    payload: bytes,
    concerned: Concerned = None,
    *,
    many: bool = False,
) -> None:
    """Append an entry of our term to our own log; `broadcast` sends it. `concerned`, `many`: see
    `effects.Propose`."""
    assert s.role is LEADER
    sparing.note_appended(s, s.log.last_index + 1, concerned, many=many)
    s.append(Entry(s.log.last_index + 1, s.term, kind, s.stamp_ms(), s.wall_ms, payload))


def broadcast(s: RaftState, *, heartbeat: bool) -> None:
    """Send what they lack to those that need it now; with `heartbeat` to everybody, also to those
    that lack nothing."""
    if heartbeat:
        _begin_round(s)
    waiting = sparing.NOBODY if heartbeat else sparing.spared(s)
    for peer in s.others():
        progress = s.progress.get(peer)
        if progress is None:  # added since we lead
            progress = s.progress[peer] = Progress(s.log.last_index + 1, s.now_ms)
        if heartbeat:
            progress.probe_sent = False  # what was lost is sent again
        if peer not in waiting or not sparing.may_wait(s, progress):
            _send_append(s, peer, progress, even_empty=heartbeat)


def _begin_round(s: RaftState) -> None:
    s.round += 1
    s.rounds_ms.append(s.now_ms)
    s.heartbeat_due_ms = s.now_ms + s.timing.heartbeat_ms
    trips = sorted(p.round_trip_ms for v, p in s.progress.items() if s.membership.is_voter(v))
    if trips:  # the way to those that make a majority with us
        s.pace.on_leader(trips[(len(trips) - 1) // 2])


def _note_round(s: RaftState, progress: Progress, round_number: int) -> None:
    """It has answered this heartbeat."""
    age = s.round - round_number
    if round_number > progress.round and 0 <= age < len(s.rounds_ms):
        took_ms = s.now_ms - s.rounds_ms[-1 - age]
        progress.round_trip_ms += ROUND_TRIP_WEIGHT * (took_ms - progress.round_trip_ms)
    progress.round = max(progress.round, round_number)


def _is_silent(s: RaftState, progress: Progress) -> bool:
    return s.now_ms - progress.contact_ms >= s.timing.election_ms_min


def _send_append(s: RaftState, peer: PeerId, progress: Progress, *, even_empty: bool) -> None:
    silent = _is_silent(s, progress)
    if silent and not even_empty:
        return
    if progress.next < s.log.first:
        _send_snapshot(s, peer, progress, heartbeat=even_empty)
        return
    progress.sending = None
    entries: tuple[Entry, ...] = ()
    if not silent and not progress.must_wait:
        entries = s.log.bounded(
            progress.next, count_max=APPEND_ENTRIES_MAX, bytes_max=APPEND_BYTES_MAX
        )
    if not entries and not even_empty:
        return
    prev = progress.next - 1
    prev_term = s.log.term_at(prev)
    assert prev_term is not None
    progress.told = s.commit
    slack_ms, beat_ms = s.pace.slack_ms(progress.round_trip_ms), s.timing.heartbeat_ms
    s.send(peer, Append(s.term, prev, prev_term, s.commit, s.round, entries, slack_ms, beat_ms))
    progress.took_off(entries, s.now_ms)


def _send_snapshot(s: RaftState, peer: PeerId, progress: Progress, *, heartbeat: bool) -> None:
    """What it lacks is not in the log any more. Its heartbeats fit every log meanwhile."""
    progress.probe(progress.next)
    if heartbeat:
        progress.told = s.commit
        slack_ms, beat_ms = s.pace.slack_ms(progress.round_trip_ms), s.timing.heartbeat_ms
        s.send(peer, Append(s.term, 0, 0, s.commit, s.round, (), slack_ms, beat_ms))
    send_pieces(s, peer, progress)


def _tell_commit(s: RaftState, peer: PeerId, progress: Progress) -> None:
    """News that needs no answer: halves the messages of a quiet cluster."""
    prev = progress.next - 1
    prev_term = s.log.term_at(prev)
    assert prev_term is not None
    progress.told = s.commit
    s.send(peer, Append(s.term, prev, prev_term, s.commit, NO_ANSWER))


def send_spared(s: RaftState) -> None:
    """What was kept back from those whom it did not concern, once it is due."""
    if not sparing.takes_due(s):
        return
    for peer, progress in s.progress.items():
        if progress.next < s.log.first:
            continue  # a snapshot comes with the next append
        if progress.next <= s.log.last_index:
            _send_append(s, peer, progress, even_empty=False)
        elif progress.told < s.commit and not progress.probing and not _is_silent(s, progress):
            _tell_commit(s, peer, progress)


def on_append_reply(s: RaftState, sender: PeerId, reply: AppendReply) -> None:
    progress = s.progress.get(sender)
    if s.role is not LEADER or progress is None or reply.term != s.term:
        return
    progress.contact_ms = s.now_ms
    _note_round(s, progress, reply.round)
    progress.sync_ms = reply.sync_ms
    if reply.ok:
        on_match(s, sender, progress, reply.match)
    else:
        _on_refusal(s, sender, progress, reply)


def on_match(s: RaftState, sender: PeerId, progress: Progress, match: int) -> None:
    """The follower agrees up to `match`, and has that much on disk."""
    assert match <= s.log.last_index
    progress.landed(match, s.now_ms)
    if match > s.commit:  # as what heartbeats are answered with seldom is
        advance_commit(s)
    if progress.next <= s.log.last_index and not (
        sparing.may_wait(s, progress) and sender in sparing.spared(s)
    ):
        _send_append(s, sender, progress, even_empty=False)


def _on_refusal(s: RaftState, sender: PeerId, progress: Progress, reply: AppendReply) -> None:
    refused = reply.match  # the `prev_index` that didn't fit
    if refused <= progress.match or (progress.probing and refused != progress.next - 1):
        return  # an old answer, overtaken
    hint = reply.conflict_index
    if reply.conflict_term:
        own = s.log.last_of_term(reply.conflict_term, refused)
        hint = own + 1 if own is not None else hint
    progress.probe(max(progress.match + 1, min(hint, refused)))
    _send_append(s, sender, progress, even_empty=True)


def advance_commit(s: RaftState) -> None:
    """Commit what a majority has on disk, if it is of our own term, and tell those whom it
    concerns; the others need not be woken for it alone."""
    if s.role is not LEADER:
        return
    stored = sorted(
        s.log.stable if voter.peer == s.me else _match(s, voter.peer)
        for voter in s.membership.voters
    )
    index = stored[(len(stored) - 1) // 2]  # at least this much is on a majority
    if index <= s.commit or not may_commit(s, index):
        return
    first_of_term = s.commit < s.leading_from <= index
    s.commit = index
    s.emit(Commit(index))
    if first_of_term:
        s.emit(LeaderChanged(s.me, s.term))
    concerned = sparing.take_committed(s)
    waiting = sparing.spared(s)
    for peer, progress in s.progress.items():
        is_concerned = concerned is None or peer in concerned
        if progress.next <= s.log.last_index:
            if is_concerned or peer not in waiting or not sparing.may_wait(s, progress):
                _send_append(s, peer, progress, even_empty=False)
        elif progress.probing or _is_silent(s, progress):
            continue
        elif is_concerned:
            _tell_commit(s, peer, progress)
        else:
            sparing.wait(s, index)


def may_commit(s: RaftState, index: int) -> bool:
    """Older terms are only committed along with an entry of ours (section 5.4.2)."""
    return s.log.term_at(index) == s.term


def _match(s: RaftState, peer: PeerId) -> int:
    progress = s.progress.get(peer)
    return progress.match if progress else 0


# --- follower -------------------------------------------------------------------------------------


def on_append(s: RaftState, sender: PeerId, append: Append) -> None:
    if append.term < s.term:
        s.send(sender, AppendReply(s.term, append.round, ok=False, match=append.prev_index))
        return
    if append.round != NO_ANSWER:
        s.pace.on_leader(append.slack_ms, append.heartbeat_ms)
    follow(s, sender)
    base = s.log.base.index
    # What stands at or before our base is committed, so it agrees with whatever leader.
    if append.prev_index >= base and s.log.term_at(append.prev_index) != append.prev_term:
        _refuse(s, sender, append)
        regain.on_refused(s, sender)
        return
    for entry in append.entries:
        if entry.index > base:
            _take(s, entry)
    match = max(base, append.prev_index + len(append.entries))
    if append.round != NO_ANSWER or append.entries:
        _reply(s, sender, append, match)
    regain.on_agreed(s, sender, match, is_heartbeat=append.round != NO_ANSWER)
    commit = min(append.commit, match)
    if commit > s.commit:
        s.commit = commit
        s.emit(Commit(commit))


def follow(s: RaftState, sender: PeerId) -> None:
    """Whoever sends what only a leader sends in our term leads it."""
    assert s.role is not LEADER, "one leader a term"
    if s.role is not Role.FOLLOWER or s.leader != sender:
        s.become_follower(sender)
    s.leader_heard_ms = s.now_ms
    s.reset_election_timer()


def _refuse(s: RaftState, sender: PeerId, append: Append) -> None:
    index, term = s.log.last_index + 1, 0
    if append.prev_index < index:
        term = s.log.term_at(append.prev_index) or 0
        index = s.log.first_of_term_at(append.prev_index)
    s.promise(sender, AppendReply(s.term, append.round, False, append.prev_index, index, term))


def _take(s: RaftState, entry: Entry) -> None:
    """Take an entry unless we have it. Only a real conflict drops what stands at its index."""
    term = s.log.term_at(entry.index)
    if term == entry.term:
        return
    if term is not None:
        s.truncate_from(entry.index)
    s.append(entry)


def _reply(s: RaftState, sender: PeerId, append: Append, match: int) -> None:
    """Say what fits once it is on disk. A slow disk must not look like a dead peer, so meanwhile
    a heartbeat is answered with what is on disk already."""
    sync_ms = int(s.sync_ms)
    reply = AppendReply(s.term, append.round, True, match, room=s.room, sync_ms=sync_ms)
    s.promise(sender, reply)
    if not append.entries and not s.all_synced and s.synced_term == s.term:
        stable = min(match, s.log.stable)
        s.send(sender, msgspec.structs.replace(reply, match=stable))
