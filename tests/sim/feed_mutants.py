"""Bugs in following, planted on purpose: see `mutants`. Only runs with followers show them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core import follower
from p2psched.core.feed import Feeder, _Fed
from p2psched.core.follower import Follower
from p2psched.core.owner import Owner
from p2psched.model.feed_messages import FedJob, Feed, FeedElsewhere, Follow
from p2psched.model.ids import PeerId
from tests.sim.mutants import Planted, Planting


@contextmanager
def _takes_what_is_older() -> Iterator[None]:
    """Neither side looks at the cursor: a feeder that lags tells of what is long over."""
    on_follow, on_told = Feeder.on_follow, Follower._on_told

    def forgetful(self: Feeder, now_ms: int, peer: PeerId, follow: Follow) -> None:
        on_follow(self, now_ms, peer, msgspec.structs.replace(follow, cursor=0))

    def trusting(self: Follower, now_ms: int, sender: PeerId, told: Feed | FeedElsewhere) -> None:
        if isinstance(told, Feed):
            self.cursor = min(self.cursor, told.index)
        on_told(self, now_ms, sender, told)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Feeder, "on_follow", forgetful))
        stack.enter_context(patch.object(Follower, "_on_told", trusting))
        yield


def _begins_all_anew() -> Planted:
    """It takes what it works on for new."""
    return patch.object(Owner, "held", lambda self: {})


def _outcomes_are_not_told() -> Planted:
    tell = Feeder._tell

    def silent(self: Feeder, peer: PeerId, fed: _Fed, jobs: list[FedJob]) -> None:
        fed.outcomes.clear()
        tell(self, peer, fed, jobs)

    return patch.object(Feeder, "_tell", silent)


def _starts_while_drained() -> Planted:
    return patch.object(follower, "is_draining", lambda _state, _peer: False)


FEED_MUTANTS: Final[dict[str, tuple[Planting, str]]] = {
    "a follower takes what is older than what it has seen": (_takes_what_is_older, "P5"),
    "a follower begins all anew that it is told": (_begins_all_anew, "P5"),
    "a follower isn't told what came of its results": (_outcomes_are_not_told, "L5"),
    "a drained follower goes on to start what it owns": (_starts_while_drained, "L5"),
}
