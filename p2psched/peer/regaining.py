"""A peer whose log was damaged asks the others for what it lost, and gives up if nobody leads them.

What it asks and when it votes again is the core's (`core.raft.regain`); here is only the end of
patience. Where no majority is intact nobody can be elected: then every peer must say so and stop,
for a person has to choose what to bring back.
"""

from __future__ import annotations

import asyncio
from typing import Final

from p2psched.model.errors import Damaged
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Standing

PATIENCE_ELECTIONS: Final = 60  # as long as these may take without anybody to follow
LOOK_S: Final = 0.5


async def await_regained(
    raft: Standing, lost: Damaged, *, clock: Clock, election_ms_max: int
) -> None:
    """Returns when the log is whole again. Raises Damaged, with the file and the offset of the
    first damage, if no leader is heard for `PATIENCE_ELECTIONS` election timeouts."""
    patience_ms = PATIENCE_ELECTIONS * election_ms_max
    heard_ms = clock.now_ms()
    while raft.is_regaining:
        if raft.leader_is_live():
            heard_ms = clock.now_ms()
        elif clock.now_ms() - heard_ms > patience_ms:
            raise Damaged(
                f"{lost}. For {patience_ms // 1000} s nobody led the others: start them, and this "
                "peer again. If most of them are damaged, bring back an intact copy of the data "
                "folder of one of those that were not, or of this one's from before",
                file=lost.file,
                offset=lost.offset,
            )
        await asyncio.sleep(LOOK_S)
