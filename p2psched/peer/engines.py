"""Picks the engine that carries the ledger of a peer, and knows what only the embedded one does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from p2psched.core.raft.timing import Timing
from p2psched.model.config import Config
from p2psched.model.errors import Refused
from p2psched.model.ids import PeerId
from p2psched.model.messages import Forward
from p2psched.model.raft import Membership, RaftMessage
from p2psched.peer.log_marker import LogMarker
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.snapshots import MakeDurable
from p2psched.peer.space import SpaceKeeper
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Engine
from p2psched.ports.ledger import LedgerListener
from p2psched.store.log import LogStore, Recovered


def embedded(ledger: Engine, lacks: str) -> RaftLedger:
    """For what only the embedded engine can do. Raises Refused with what another one `lacks`."""
    if not isinstance(ledger, RaftLedger):
        raise Refused(f"a raftos ledger {lacks}: see docs/engines.md")
    return ledger


def make_ledger(
    config: Config,
    group: Sequence[str],
    *,
    me: PeerId,
    secret: bytes,
    store: LogStore,
    recovered: Recovered,
    clock: Clock,
    rng: random.Random,
    send: Callable[[PeerId, RaftMessage | Forward], object],
    listener: LedgerListener,
    on_membership: Callable[[Membership], None],
    on_disk_failed: Callable[[Exception], None],
    on_bug: Callable[[Exception], None],
    space: SpaceKeeper,
    make_durable: MakeDurable,
    late_ms: Callable[[], float],
    away_ms: Callable[[], int | None],
) -> Engine:
    """`group`: as `static_group.group_of` said."""
    timing = Timing(config.heartbeat_ms, config.election_ms_min, config.election_ms_max)
    if not group:
        return RaftLedger(
            me=me,
            timing=timing,
            store=store,
            recovered=recovered,
            clock=clock,
            rng=rng,
            send=send,
            listener=listener,
            on_membership=on_membership,
            on_disk_failed=on_disk_failed,
            on_bug=on_bug,
            space=space,
            make_durable=make_durable,
            snapshot_log_bytes=space.log_bytes(config.snapshot_log_bytes),
            late_ms=late_ms,
            away_ms=away_ms,
        )
    from p2psched.engines.raftos.ledger import RaftosLedger  # noqa: PLC0415 (an option)

    return RaftosLedger(
        me=me,
        address=config.listen,
        group=group,
        secret=secret,
        timing=timing,
        store=store,
        hard_state=recovered.hard_state,
        entries=recovered.entries,
        clock=clock,
        rng=rng,
        send=send,
        listener=listener,
        on_membership=on_membership,
        on_disk_failed=on_disk_failed,
        on_bug=on_bug,
        marker=LogMarker(store, on_failed=on_disk_failed),
    )
