"""What a follower's core takes and gives, besides what a scheduler's does."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from p2psched.core.feed import Say
from p2psched.core.scheduler_events import (
    Asked,
    Began,
    Copied,
    Executed,
    GaveUp,
    Leaving,
    Renewed,
    Round,
    SchedulerEffect,
    Watched,
)
from p2psched.core.separation_effects import SeparationEvent
from p2psched.model.feed_messages import Feed, FeedElsewhere
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.steal_messages import StealMessage


class Told(msgspec.Struct, frozen=True):
    """A message of a feeder, or of who steals or is asked to give."""

    now_ms: int
    sender: PeerId
    message: Feed | FeedElsewhere | StealMessage


class Lost(msgspec.Struct, frozen=True):
    """The connection to a peer broke."""

    now_ms: int
    peer: PeerId


class Passed(msgspec.Struct, frozen=True):
    """Time went on."""

    now_ms: int
    seen: Mapping[PeerId, Seen] = {}  # what gossip says of the others: advice, maybe old or wrong


FollowerEvent = (
    Began
    | Asked
    | GaveUp
    | Executed
    | Copied
    | Renewed
    | Leaving
    | Round
    | Told
    | Lost
    | Passed
    | SeparationEvent
    | Watched
)
FollowerEffect = SchedulerEffect | Say
