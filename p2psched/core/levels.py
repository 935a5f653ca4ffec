"""Feature levels: how a cluster is upgraded peer by peer.

A command that older versions don't know would stop them. So each peer tells with `PeerInfo` the
highest level that it knows, the ledger holds the level that is in use, and that rises by a command
of its own once every peer that the ledger knows, up or down, knows more; who was removed from the
group is forgotten (`peering.forget`), and counts no more. What needs a higher level is refused
until then, by whoever is asked and, for equal states, by the fold. The level in use never falls; a
version that doesn't know it can't follow the ledger any more, and stops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from p2psched.core.state import LedgerState
from p2psched.model.actions import Act, Elapsed
from p2psched.model.backing import BackUp
from p2psched.model.commands import (
    Acknowledged,
    Command,
    Drain,
    DrainMode,
    ForgetPeer,
    GiveBack,
    NewGeneration,
    Outcome,
    RaiseLevel,
    Rejected,
    SubmitJob,
)
from p2psched.model.errors import Refused
from p2psched.model.ids import PeerId
from p2psched.model.job import JobSpec
from p2psched.model.moves import Transfer
from p2psched.model.needs import Offer
from p2psched.model.once import Gone, Once, Start
from p2psched.model.pace_commands import Warn
from p2psched.model.reconciled import Reconciled
from p2psched.model.resumed import NoteResumed
from p2psched.model.webhook import AckWebhook, AddWebhook, RemoveWebhook

KNOWN_LEVEL: Final = 7  # the highest that this version knows
# Members are removed, and voters made learners: an older version, as leader, would forget of it.
GROUP_LEVEL: Final = 2
HOLD_LEVEL: Final = 4  # an older version would run the tasks without the lock
NEEDS_LEVEL: Final = 5  # or on peers that lack what they need
CORDON_LEVEL: Final = 5  # an older version knows no such mode
CUT_OFF_LEVEL: Final = 5  # an older version would go on with its tasks for ever
PACE_LEVEL: Final = 5  # an older version knows no tasks that stall
RETRY_LEVEL: Final = 5  # an older version would retry at once, or never, and know no limits of time
ISOLATION_LEVEL: Final = 5  # an older version would run the tasks without limits
CHECKPOINT_LEVEL: Final = 5  # an older version would run the tasks without a place to save
STALL_LEVEL: Final = 5  # an older version would tell nothing of it
BACKUP_LEVEL: Final = 6  # an older version would know of one owner only
ONCE_LEVEL: Final = 5  # an older version would start the tasks at once, and again
EXCLUSIVE_LEVEL: Final = 6  # an older version knows no lease on a task
GONE_LEVEL: Final = 7  # or none that ends early
PRECEDENCE_LEVEL: Final = 7  # an older version would take all jobs in the order of their submits
AFTER_LEVEL: Final = 7  # or run them at once
# Commands that came later, and with which level; all others may be used from the first on.
NEEDED: Final[dict[type[Command], int]] = {
    Drain: 2,
    GiveBack: 2,
    NewGeneration: 2,
    AddWebhook: 3,
    RemoveWebhook: 3,
    AckWebhook: 3,
    ForgetPeer: 3,
    Act: 4,
    Elapsed: 4,
    Offer: NEEDS_LEVEL,
    Transfer: 5,
    NoteResumed: 5,
    Reconciled: CUT_OFF_LEVEL,
    Warn: PACE_LEVEL,
    Once: ONCE_LEVEL,
    BackUp: BACKUP_LEVEL,
}


def _level_of(spec: JobSpec) -> int:
    if spec.precedence is not None:
        return PRECEDENCE_LEVEL
    if spec.start is Start.EXCLUSIVE:
        return EXCLUSIVE_LEVEL
    if spec.backs_up:
        return BACKUP_LEVEL
    if spec.retry is not None or spec.times is not None or spec.pace is not None:
        return RETRY_LEVEL
    if spec.isolation is not None:
        return ISOLATION_LEVEL
    if spec.max_disconnect_ms is not None:
        return CUT_OFF_LEVEL
    if spec.start:
        return ONCE_LEVEL
    if spec.needs is not None or spec.policy:
        return NEEDS_LEVEL
    if spec.checkpoint:
        return CHECKPOINT_LEVEL
    return HOLD_LEVEL if spec.hold is not None else 1


def _level_of_submit(submit: SubmitJob) -> int:
    return AFTER_LEVEL if submit.spec.after is not None else _level_of(submit.spec)


def _level_of_back(back: GiveBack) -> int:
    if back.by:
        return PRECEDENCE_LEVEL
    return STALL_LEVEL if back.stall is not None else NEEDED[GiveBack]


# Where it depends on what they say.
_BY: Final[dict[type[Command], Callable[[Any], int]]] = {
    SubmitJob: _level_of_submit,
    Drain: lambda drain: CORDON_LEVEL if drain.mode is DrainMode.CORDON else NEEDED[Drain],
    GiveBack: _level_of_back,
    Once: lambda once: GONE_LEVEL if isinstance(once.step, Gone) else ONCE_LEVEL,
}


def refusal(s: LedgerState, command: Command) -> Rejected | None:
    """Why a command may not be proposed yet."""
    kind = type(command)
    by = _BY.get(kind)
    return _refusal(s, by(command) if by is not None else NEEDED.get(kind, 1))


def _refusal(s: LedgerState, needed: int) -> Rejected | None:
    if needed <= s.level:
        return None
    older = ", ".join(_lacking(s, needed)) or "none"
    return Rejected(
        "unavailable",
        f"this needs feature level {needed}, and the cluster uses {s.level} until all of its "
        f"peers know more; those that don't: {older}",
    )


def group_refusal(s: LedgerState) -> Rejected | None:
    """Why the group may not be looked after, nor changed by people, yet."""
    return _refusal(s, GROUP_LEVEL)


def to_raise(s: LedgerState, removed: Iterable[PeerId] = ()) -> list[Command]:
    """What the coordinator should propose: nothing, or the next level. `removed`: from the group,
    for good; once they are down nobody has to wait for them."""
    gone = [peer for peer in removed if _is_down(s, peer)]
    known = {peer: row.info.level for peer, row in s.peers.items()}
    common = min((level for peer, level in known.items() if peer not in gone), default=1)
    if common <= s.level:
        return []
    return [RaiseLevel(common, tuple(peer for peer in gone if known[peer] < common))]


def raise_level(s: LedgerState, command: RaiseLevel, *, known_level: int) -> Outcome:
    """Raises Refused if this version doesn't know the level that all others use from here on."""
    if command.level <= s.level:
        return Acknowledged()
    gone = {peer for peer in command.gone if _is_down(s, peer)}
    older = _lacking(s, command.level, gone)
    if older:
        return Rejected(
            "refused", f"feature level {command.level} is unknown to {', '.join(older)}"
        )
    check_known(command.level, known_level)
    s.level = command.level
    return Acknowledged()


def _is_down(s: LedgerState, peer: PeerId) -> bool:
    return peer in s.peers and not s.peers[peer].live


def check_known(level: int, known_level: int) -> None:
    """Raises Refused if the ledger uses a level that this version does not know."""
    if level > known_level:
        raise Refused(
            f"the ledger uses feature level {level}, and this version of p2psched knows "
            f"{known_level}: install the version that the other peers run"
        )


def _lacking(s: LedgerState, level: int, gone: Collection[PeerId] = ()) -> list[str]:
    rows = ((peer, row.info) for peer, row in s.peers.items())
    return sorted(info.name for peer, info in rows if info.level < level and peer not in gone)
