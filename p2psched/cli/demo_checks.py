"""The demo's verdict: what was run again according to history, and what must hold.

Pure functions of what was seen; nothing here asks a peer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from p2psched.demo.digits import Score, Winner, reduce_scores
from p2psched.demo.facts import Check, Outage, Rerun
from p2psched.model.commands import Event, Recorded, Revoked
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobState
from p2psched.model.messages import JobView
from p2psched.model.taskset import EMPTY, TaskSet


def reruns_of(events: Iterable[Event], names: Mapping[PeerId, str]) -> tuple[Rerun, ...]:
    """Tasks that went from a lost peer to others, one line for each peer that lost some."""
    lost: dict[PeerId, TaskSet] = defaultdict(lambda: EMPTY)
    ended_by: dict[int, PeerId] = {}
    for event in events:
        match event:
            case Revoked(peer=peer, tasks=tasks, cause=Cause.PEER_LOST):
                lost[peer] = lost[peer] | tasks
            case Recorded(peer=peer, segment=segment):
                ended_by.update(dict.fromkeys(range(segment.start, segment.stop), peer))
            case _:
                pass
    return tuple(
        Rerun(
            cause=Cause.PEER_LOST,
            peer=names[peer],
            tasks=str(tasks),
            count=len(tasks),
            ended_by=dict(Counter(names[ended_by[index]] for index in tasks if index in ended_by)),
        )
        for peer, tasks in sorted(lost.items(), key=lambda item: names[item[0]])
    )


def checks_of(
    *,
    view: JobView,
    seen: Mapping[int, int],
    scores: Sequence[Score],
    alone: Sequence[Score],
    winner: Winner,
    reruns: Sequence[Rerun],
    outage: Outage | None,
    agreed: bool,
) -> tuple[Check, ...]:
    """`seen`: index of a task -> how many results of it reached the client."""
    once = set(seen) == set(range(view.tasks)) and set(seen.values()) == {1}
    checks = [
        Check(
            text=f"all {view.tasks} tasks succeeded, each with exactly one result",
            ok=once and view.state is JobState.SUCCEEDED and view.succeeded == view.tasks,
        ),
        Check(
            text=f"all {len(alone)} scores equal (==) those of one process without a cluster",
            ok=list(scores) == list(alone),
        ),
        Check(
            text="the reduce task chose the winner that one process chooses, matrix and all",
            ok=winner == reduce_scores(alone),
        ),
        Check(text="all peers hold one state: equal hashes at one index", ok=agreed),
    ]
    if outage is not None:
        checks += _outage_checks(view, reruns, outage)
    return tuple(checks)


def _outage_checks(view: JobView, reruns: Sequence[Rerun], outage: Outage) -> list[Check]:
    count = sum(rerun.count for rerun in reruns)
    ended = sum(sum(rerun.ended_by.values()) for rerun in reruns)
    checks = [
        Check(
            text=f"the leader was killed, {outage.unfinished} tasks before the end, and replaced",
            ok=outage.unfinished > 0 and outage.leader != outage.killed,
        ),
        Check(
            text=f"what it left behind, {count} of them, ended elsewhere; history names each",
            ok=0 < count <= view.attempts_lost and count == ended,
        ),
        Check(
            text=f"{outage.killed} was restarted while tasks ran, and is back",
            ok=outage.restarted_while_running,
        ),
    ]
    if outage.client_was_at_killed:
        checks.append(
            Check(
                text=f"the client lost its own peer and went on through {outage.client_moved_to}",
                ok=outage.client_moved_to != outage.killed,
            )
        )
    return checks
