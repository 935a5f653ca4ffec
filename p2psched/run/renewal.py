"""Where a batch learns that its lease is over later: wherever it is by now."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from p2psched.model.execution import Batch
from p2psched.run.host_handle import HostHandle
from p2psched.run.supply import Supply


def renew(
    number: int,
    until_ms: int,
    *,
    running: Mapping[int, HostHandle],
    queue: deque[Batch],
    supply: Supply | None,
) -> None:
    """`running`: batch -> its host, which ends it there by itself."""
    host = running.get(number)
    if host is not None:
        host.shared.set_lease(until_ms)
        return
    for place, batch in enumerate(queue):
        if batch.id == number:
            queue[place] = msgspec.structs.replace(batch, until_ms=until_ms)
            return
    if supply is not None:
        supply.renew(number, until_ms)
