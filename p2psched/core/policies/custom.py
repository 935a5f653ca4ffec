"""A policy that a user wrote: one function that says how good a peer is for a task.

    NAME = "near-the-data"
    SUMMARY = "peers with the label data=here first"

    def score(ask, peer):
        return peer.load_us / peer.slots

The least is best; None: not there. Tasks go one after another to whoever is best, given what the
tasks before have made of it. With `LATE = False` all are pushed at once. What fails, or says
nonsense, gives nothing, and the caller goes by `adaptive`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from p2psched.core.placement import GRANT_US_MIN, SHARES_PER_SLOT, Candidate, room_in
from p2psched.core.policies.base import PUSH_MAX, Ask, Notes, Shares
from p2psched.model.errors import UsageError
from p2psched.model.ids import PeerId
from p2psched.model.needs import check_policy

Score = Callable[[Ask, Candidate], float | None]


class Custom:
    def __init__(self, name: str, summary: str, score: Score, *, is_late: bool = True) -> None:
        self.name = name
        self.summary = summary
        self.is_late = is_late
        self._score = score

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        """Raises whatever the user's function raises, and ValueError for what is no score."""
        rooms = {peer.peer: self._room(ask, peer, peers) for peer in peers}
        now = {peer.peer: peer for peer in peers if rooms[peer.peer] > 0}
        scores = {name: self._said(ask, peer) for name, peer in now.items()}
        given: dict[PeerId, int] = {}
        for _ in range(min(ask.count, PUSH_MAX)):
            open_ = [(s, name) for name, s in scores.items() if s is not None]
            if not open_:
                break
            _, name = min(open_)
            had = given[name] = given.get(name, 0) + 1
            peer = now[name] = msgspec.structs.replace(
                now[name],
                owned=now[name].owned + 1,
                load_us=now[name].load_us + ask.estimate_us * ask.cpus,
            )
            scores[name] = self._said(ask, peer) if had < rooms[name] else None
        return [(peer, given[peer.peer]) for peer in peers if peer.peer in given]

    def score(self, ask: Ask, peer: Candidate) -> float:
        said = self._said(ask, peer)
        return math.inf if said is None else said

    def _said(self, ask: Ask, peer: Candidate) -> float | None:
        said = self._score(ask, peer)
        if said is None:
            return None
        if not isinstance(said, int | float) or math.isnan(said):
            raise ValueError(f"policy {self.name} says {said!r}, which is no score")
        return float(said)

    def _room(self, ask: Ask, peer: Candidate, peers: Sequence[Candidate]) -> int:
        if not self.is_late:
            return ask.room(peer)
        fair = -(-ask.count // sum(other.slots for other in peers))
        quota = max(-(-fair // SHARES_PER_SLOT), min(fair, GRANT_US_MIN // ask.estimate_us))
        here = ask.owned_here.get(peer.peer, 0)
        room = room_in(peer, quota, here, ask.estimate_us, ask.cpus)
        return min(room, ask.most.get(peer.peer, room))


def custom(values: Mapping[str, object], where: str) -> Custom:
    """Of what stands in a user's module. Raises UsageError."""
    name, score = values.get("NAME"), values.get("score")
    summary, late = values.get("SUMMARY", ""), values.get("LATE", True)
    if not isinstance(name, str) or not name or not callable(score):
        raise UsageError(f"{where} is no policy: it needs NAME and a function score(ask, peer)")
    try:
        check_policy(name)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    return Custom(name, str(summary), score, is_late=bool(late))
