"""Which batches of a pool have not begun, and why, if that is right.

A batch has begun once its host says so in the notes that it shares, or has sent a result of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p2psched.model.execution import Batch, Standing, Unbegun
from p2psched.run.adoption import Adopter
from p2psched.run.handed import Running
from p2psched.run.host_handle import HostHandle
from p2psched.run.supply import Supply

NO_SLOT = "it waits for a slot"
BEHIND = "it stands behind what runs"
ON_THE_WAY = "the data that it needs are on their way here"


def has_begun(host: HostHandle, running: Running) -> bool:
    batch = running.batch
    return running.left != batch.tasks or host.shared.opened == batch.id


def standing(
    queue: Iterable[Batch],
    running: Mapping[int, HostHandle],
    *,
    room: int,
    up: bool,
    supply: Supply | None,
    adopter: Adopter | None,
) -> Standing:
    """`room`: slots that no host has. `up`: there is a starter, so hosts can be had."""
    unbegun: list[Unbegun] = []
    batches = {*running}
    for batch in queue:
        batches.add(batch.id)
        reason = NO_SLOT if batch.spec.cpus > room else ""
        room = 0 if reason else room - batch.spec.cpus  # nothing overtakes
        what = "no worker took it, and a slot is free" if up else "no worker can be started"
        unbegun.append(Unbegun(batch.id, what, reason))
    for number in supply.getting_ready if supply is not None else ():
        batches.add(number)
        unbegun.append(Unbegun(number, ON_THE_WAY, ON_THE_WAY))
    for number, host in running.items():
        if has_begun(host, host.batches[number]):
            continue
        is_next = next(iter(host.batches)) == number
        what = f"worker process {host.number} was given it, and has not begun"
        unbegun.append(Unbegun(number, what, "" if is_next else BEHIND))
    if adopter is not None:
        batches |= adopter.batches
    return Standing(frozenset(batches), tuple(unbegun))
