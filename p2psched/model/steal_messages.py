"""What a peer with nothing to do and one with too much say to each other (ADR 0051). Both are lost
without harm. Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

import msgspec

from p2psched.model.backing import Lagging
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.precedence import MakeWay


class Steal(msgspec.Struct, frozen=True, array_like=True, tag=113):
    """Give me tasks that you have not begun."""

    number: int  # of the request: the answer names it
    incarnation: int  # under which the sender would own them
    slots: int  # that it has
    offers: Offers = NOTHING  # and what else
    most: int = 0  # tasks that it wants; 0: no matter how many
    spare: int = 1000  # per mille of its slots, while others compute there, too


class Gives(msgspec.Struct, frozen=True, array_like=True, tag=114):
    """So many are on their way: the ledger will say so. If there are none, ask again later."""

    number: int
    count: int
    again_ms: int = 0


StealMessage = Steal | Gives | Lagging | MakeWay  # among owners, to who places, and from there
