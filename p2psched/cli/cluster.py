"""`p2psched peers` and `p2psched status`: who is there, and how one peer sees the cluster."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from p2psched.cli.connect import Label, label, talk
from p2psched.cli.describe import info_fields, peer_fields
from p2psched.cli.limits import kept_by
from p2psched.cli.loads import load_sheet, watch_loads
from p2psched.cli.options import (
    AtOption,
    Target,
    duration,
    one_time,
    reads_from_peers,
    talks_to_peers,
)
from p2psched.cli.output import (
    Column,
    Output,
    count,
    moment,
    note,
    print_json,
    print_sheet,
    print_table,
    size,
    span,
    write_line,
)
from p2psched.cli.reconcile import separation_fields, summary
from p2psched.cli.refused import door_row
from p2psched.cli.resumed import status_row
from p2psched.client.client import Client
from p2psched.client.events import past
from p2psched.client.find import find_peers
from p2psched.client.session import Session
from p2psched.model.ids import short
from p2psched.model.messages import GetStatus, ListPeers
from p2psched.model.peer_messages import PeerList, PeerView
from p2psched.model.stalls import StallStatus
from p2psched.model.status_messages import (
    BLOBS_SHORT_MAX,
    GossipStatus,
    SeparationStatus,
    SpaceStatus,
    StatusAnswer,
)

PEERS_EXAMPLES: Final = """\b
Examples:
  p2psched peers
  p2psched peers --stale
  p2psched peers --watch
  p2psched peers -o json | jq -r '.peers[].address'
"""
STATUS_EXAMPLES: Final = """\b
Examples:
  p2psched status
  p2psched status --peer 127.0.0.1:7430
"""
_COLUMNS: Final = (
    Column(title="name", shrink_to=6),
    Column(title="id", drop=4),
    Column(title="role"),
    Column(title="state"),
    Column(title="gossip", drop=9),
    Column(title="slots", right=True, drop=8),
    Column(title="tasks", right=True),
    Column(title="address"),
    Column(title="pid", right=True, drop=5),
    Column(title="heard", right=True, drop=7),
    Column(title="zone", drop=6),
    Column(title="term", right=True, drop=3),
    Column(title="applied", right=True, drop=2),
    Column(title="lag", right=True, drop=1),
)


@reads_from_peers
def peers(
    target: Target,
    at: AtOption = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="How busy each is, again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="Between two tables of --watch.")
    ] = "1s",
) -> None:
    """List the peers: role, state, address, tasks that they own, and how far each has applied.

    With --watch, what a peer hears of the load of all by gossip: slots in use, queue and the work
    in it, processors in use (also by others than the cluster), memory, disk and so on.
    """
    one_time(target, at)
    if watch:
        watch_loads(target, at, duration(every, "--every"))
        return

    async def work(client: Client) -> tuple[list[PeerView], Label]:
        if at is not None:
            found = await past(client.session, at, ListPeers(), PeerList)
            return list(found.peers), {}
        return await client.peers(), label(client)

    found, age = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(peers=[peer_fields(view) for view in found], **age)
        case Output.QUIET:
            for view in found:
                write_line(short(view.info.peer))
        case Output.TABLE:
            print_table(_COLUMNS, [_row(view) for view in found])
            for view in found:
                if view.quarantine:
                    note(f"{view.info.name}: {view.quarantine}")


def _row(view: PeerView) -> tuple[object, ...]:
    info = view.info
    heard = "-" if view.heard_ms is None else span(view.heard_ms / 1000)
    return (
        info.name,
        short(info.peer),
        view.role,
        _state(view),
        view.gossip or "-",
        info.slots,
        view.owned,
        info.address,
        info.pid,
        heard,
        view.zone or "-",
        *("-" if number is None else number for number in (view.term, view.applied, view.lag)),
    )


def _state(view: PeerView) -> str:
    """One word for a peer that is there."""
    word = view.drain or ("quarantined" if view.quarantine else "")
    if not word:
        return view.state
    return word if view.state == "alive" else f"{view.state}, {word}"


@talks_to_peers
def status(target: Target) -> None:
    """Show how one peer sees itself and the cluster. It needs no majority."""

    async def work(client: Client) -> StatusAnswer:
        if target.peer is None:
            return await client.status()
        return await _status_of(target, target.peer)

    found = talk(target, work)
    match target.output:
        case Output.JSON:
            fields = msgspec.structs.asdict(found)
            gossip = msgspec.structs.asdict(found.gossip) if found.gossip is not None else None
            load = msgspec.to_builtins(msgspec.structs.asdict(found.load)) if found.load else None
            saved = found.checkpoints
            checkpoints = msgspec.structs.asdict(saved) if saved is not None else None
            stalls = msgspec.structs.asdict(found.stalls) if found.stalls is not None else None
            limits = [msgspec.structs.asdict(row) for row in found.limits]
            more = {
                "info": info_fields(found.info),
                "gossip": gossip,
                "load": load,
                "stalls": stalls,
                "checkpoints": checkpoints,
                "limits": limits,
                "door": msgspec.structs.asdict(found.door) if found.door is not None else None,
                "space": msgspec.structs.asdict(found.space) if found.space is not None else None,
            }
            if found.separation is not None:
                more["separation"] = separation_fields(found.separation)
            print_json(status={**fields, **more})
        case Output.QUIET:
            write_line(short(found.info.peer))
        case Output.TABLE:
            print_sheet(_sheet(found))


async def _status_of(target: Target, address: str) -> StatusAnswer:
    """Of this peer, and no other that would answer for it."""
    found, secret = find_peers(
        address, secret_file=target.secret_file, runtime_dir=target.runtime_dir
    )
    session = Session(found[:1], secret=secret, patience_s=target.patience_s)
    try:
        return await session.call(GetStatus(), StatusAnswer)
    finally:
        await session.__aexit__()


def _timing(found: StatusAnswer) -> str:
    other = ""
    if found.leader_heartbeat_ms not in (0, found.heartbeat_ms):
        other = (
            f"; its leader speaks every {found.leader_heartbeat_ms} ms: start all peers with the "
            "same --timing"
        )
    return (
        f"{found.timing}: heartbeat {found.heartbeat_ms} ms, election after "
        f"{found.election_ms_min:,} to {found.election_ms_max:,} ms of silence{other}"
    )


def _ledger(found: StatusAnswer) -> str:
    if found.role == "follower":
        return f"told up to entry {found.applied_index}, none on this disk"
    return f"applied {found.applied_index} of {found.last_index}, {size(found.log_bytes)} on disk"


def _snapshot(found: StatusAnswer) -> str:
    lacking = found.jobs_lacking
    more = f"; still fetches the results of {lacking} jobs from others" if lacking else ""
    made = f"of entry {found.snapshot_index}" if found.snapshot_index else "none yet"
    return made + more


def _large_data(found: StatusAnswer) -> str:
    text = f"{size(found.blob_bytes)} on this disk"
    if not found.blobs_counted:
        return text
    if not found.blobs_short:
        return f"{text}; large results have all their copies"
    least = "at least " if found.blobs_short >= BLOBS_SHORT_MAX else ""
    text += f"; {least}{count(found.blobs_short, 'large result')} short of copies"
    if found.peers_live == 1:
        # What most jobs ask for; one that asks for one copy has it.
        text += " (1 of 2 copies: this cluster has one peer)"
    return text


def _written(found: StatusAnswer) -> str:
    """What the owner of a flash card wants to know."""
    parts = (
        ("log", found.written_log),
        ("snapshots", found.written_snapshots),
        ("results about", found.written_results),
        ("large data", found.written_blobs),
    )
    total = sum(part for _, part in parts)
    a_day = int(total * 86_400 / max(1.0, found.uptime_s))
    named = ", ".join(f"{name} {size(part)}" for name, part in parts if part)
    return f"{size(total)} since its start, {size(a_day)} a day" + (f" ({named})" if named else "")


def _gossip(found: GossipStatus | None) -> list[tuple[str, object]]:
    if found is None:
        return []
    others = [("alive", found.alive), ("suspect", found.suspect), ("dead", found.dead)]
    named = ", ".join(f"{number} {state}" for state, number in others if number or state == "alive")
    hears = f", doubts itself ({found.health} of 8)" if found.health else ""
    dropped = found.foreign + found.malformed + found.unsent
    cost = f"{size(found.bytes_per_s)}/s sent, {found.datagrams_sent:,} datagrams"
    if found.carried:
        cost += f", {found.carried:,} over links"
    if dropped:
        cost += f"; {dropped:,} dropped ({found.foreign:,} not from this cluster)"
    if found.problem:
        cost += f"; no datagrams come in: {found.problem}"
    return [("gossip", f"{named} of the others{hears}"), ("gossip costs", cost)]


# Of a peer that holds the ledger, and of one that follows.
_OF_LEDGERS: Final = (
    "longest without leader",
    "snapshot",
    "state hash",
    "forgotten jobs",
    "disk sync",
    "timing",
    "followers",
)
_OF_FOLLOWERS: Final = ("followed",)


def _stealing(found: StatusAnswer) -> str:
    got = f"{found.tasks_got:,} tasks got ({found.steals_got:,} of {found.steals_asked:,} requests)"
    if found.steals_got:
        got += f" in {found.steal_ms_p50:.0f} ms, {found.steal_ms_p99:.0f} ms at most (99 %)"
    given = f"{found.tasks_given:,} given ({found.steals_answered:,} requests)"
    return f"{got}, {given}"


def _separation(found: SeparationStatus | None) -> list[tuple[str, object]]:
    """Only of a peer that is cut off, or was."""
    if found is None:
        return []
    rows: list[tuple[str, object]] = []
    if found.away_ms:
        left_ms = found.max_disconnect_ms - found.away_ms
        goes_on = f"goes on for {span(left_ms / 1000)}" if left_ms > 0 else "ended what it had"
        overdue = f" ({count(found.overdue, 'job')} ended)" if found.overdue else ""
        kept = f"; {count(found.results_kept, 'result')} kept" if found.results_kept else ""
        rows.append(("cut off", f"for {span(found.away_ms / 1000)}, {goes_on}{overdue}{kept}"))
    if found.spooled:
        rows.append(("spool", f"{count(found.spooled, 'job')} not accepted yet"))
    if found.newest is not None:
        back = moment(found.newest.back_wall_ms)
        rows.append(("reconciled", f"{back}: {summary(found.newest)} (`p2psched reconcile show`)"))
    return rows


def _standing_still(found: StallStatus | None) -> list[tuple[str, object]]:
    """What is as it should be is said only where work waits."""
    if found is None:
        return []
    rows: list[tuple[str, object]] = [("stands still", text) for text in found.now]
    if not found.now:
        healed = f"; it did {count(found.found, 'time')}, and is over it" if found.found else ""
        rows.append(("stands still", f"no{healed}"))
    return rows + [("work waits", text) for text in found.waits]


def _space(found: SpaceStatus | None) -> str | None:
    if found is None:  # a peer of before
        return None
    free = f"{size(found.free_bytes)} free"
    if found.room == "enough":
        return free
    return f"{free} of the least {size(found.least_bytes)}: takes no jobs, tasks and data"


def _sheet(found: StatusAnswer) -> list[tuple[str, object]]:
    info = found.info
    leader = "none known" if found.leader is None else short(found.leader)
    if found.leader == info.peer:
        leader = "this peer"
    drain = f", {found.drain}" if found.drain else ""
    kept, boxed = kept_by(found.limits)
    workers = f"workers Python {info.python}" if info.python else "no workers"
    rows: list[tuple[str, object]] = [
        ("peer", f"{info.name} ({short(info.peer)}), {found.role}{drain}"),
        ("address", info.address),
        ("process", f"{info.pid}, up for {span(found.uptime_s)}, incarnation {info.incarnation}"),
        ("software", f"p2psched {info.version}, {found.event_loop}, {workers}"),
        ("feature level", f"{found.level} in use, {info.level} known here"),
        ("slots", str(info.slots)),
        ("cluster", found.cluster),
        ("quorum", "yes" if found.quorum else "no: a majority of the voters does not answer"),
        ("leader", leader if found.role == "follower" else f"{leader}, term {found.term}"),
        ("followed", short(found.feeder) if found.feeder else "nobody yet"),
        ("followers", str(found.followers)),
        ("longest without leader", f"{found.leaderless_ms} ms"),
        ("ledger", _ledger(found)),
        ("snapshot", _snapshot(found)),
        ("large data", _large_data(found)),
        ("outputs kept", f"{count(found.outputs_kept, 'stream')}, {size(found.outputs_bytes)}"),
        ("state hash", found.state_hash),
        ("jobs", f"{found.jobs_running} running, {found.jobs_total} in all"),
        ("forgotten jobs", f"{found.forgotten_known:,} ids still taken"),
        ("tasks here", f"{found.tasks_running} running, {found.tasks_queued} queued"),
        ("stealing", _stealing(found)),
        *status_row(found.checkpoints),
        *_standing_still(found.stalls),
        ("quarantine", found.quarantine or "no"),
        ("results refused", str(found.results_refused)),
        *door_row(found.door),
        (
            "event loop late",
            f"{found.loop_late_ms_p99:.1f} ms (99 %), {found.loop_late_ms_max:.1f} ms at most",
        ),
        ("disk", _space(found.space)),
        ("disk sync", f"{found.fsync_ms:.2f} ms"),
        ("timing", _timing(found)),
        ("written", _written(found)),
        ("network", f"{size(found.bytes_sent)} sent, {size(found.bytes_received)} received"),
        *_gossip(found.gossip),
        *load_sheet(found.load),
        *_separation(found.separation),
        ("limits of tasks", kept),
        ("sandbox", boxed),
        ("events dropped", str(found.events_dropped)),
    ]
    absent = _OF_LEDGERS if found.role == "follower" else _OF_FOLLOWERS
    return [row for row in rows if row[0] not in absent]
