"""Why tasks went where they went: what the coordinator saw when it placed them, for people who ask.

The newest only, in memory. A record keeps the view that was there anyway; scores are reckoned when
somebody asks, so that noting one costs nothing worth speaking of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Policy
from p2psched.model.explain_messages import Considered, Decision, WallOf
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet

RECORDS_MAX: Final = 2_048
CELLS_MAX: Final = 131_072  # candidates in all records together
CANDIDATES_TOLD_MAX: Final = 50  # the best, in an answer


class Record(msgspec.Struct, frozen=True, gc=False):
    """One placement, or that nothing was placed."""

    job: JobId
    shares: Sequence[tuple[Candidate, TaskSet]]
    candidates: Sequence[Candidate]
    at_ms: int  # the coordinator's time
    estimate_us: int
    cpus: int
    policy: str = ""
    note: str = ""
    ask: Ask | None = None


class Decisions:
    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._cells = 0

    def note(self, record: Record) -> None:
        self._records.append(record)
        self._cells += len(record.candidates)
        while len(self._records) > RECORDS_MAX or self._cells > CELLS_MAX:
            self._cells -= len(self._records.popleft().candidates)

    def find(self, job: JobId, index: int) -> list[Record]:
        """Of the placements of a task, newest first."""
        return [
            record
            for record in reversed(self._records)
            if record.job == job and any(index in tasks for _, tasks in record.shares)
        ]

    def __len__(self) -> int:
        return len(self._records)


def told(
    record: Record, index: int, policies: Mapping[str, Policy], by: PeerId, wall_of: WallOf
) -> Decision:
    """As people may read it. `by`: who decided."""
    policy = policies.get(record.policy) or policies["adaptive"]
    ask = record.ask or Ask(
        record.job,
        sum(len(tasks) for _, tasks in record.shares),
        record.estimate_us,
        record.cpus,
        NOBODY,
    )
    chosen, tasks = next((c, tasks) for c, tasks in record.shares if index in tasks)
    given = {candidate.peer: len(share) for candidate, share in record.shares}
    considered = []
    for candidate in record.candidates:
        seen = candidate.seen
        considered.append(
            Considered(
                peer=candidate.peer,
                score=_score(policy, ask, candidate),
                slots=candidate.slots,
                owned=candidate.owned,
                load_ms=candidate.load_us // 1000,
                given=given.get(candidate.peer, 0),
                age_ms=record.at_ms - seen.heard_ms if seen is not None else None,
                fits=candidate.slots >= record.cpus,
            )
        )
    considered.sort(key=lambda each: (not each.given, each.score, each.peer))
    return Decision(
        kind="placed",
        by=by,
        policy=policy.name,
        note=record.note,
        wall_ms=wall_of(record.at_ms),
        chosen=chosen.peer,
        tasks=tasks,
        estimate_us=record.estimate_us,
        considered=tuple(considered[:CANDIDATES_TOLD_MAX]),
        left_out=max(0, len(considered) - CANDIDATES_TOLD_MAX),
    )


def _score(policy: Policy, ask: Ask, candidate: Candidate) -> float:
    try:
        return policy.score(ask, candidate)
    except Exception:  # noqa: BLE001 (a user's function: whatever it raises, it is not ours)
        return UNKNOWN_SCORE


UNKNOWN_SCORE: Final = -1.0
NOBODY: Final[Mapping[PeerId, int]] = {}
