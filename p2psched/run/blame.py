"""How the task ended that ran when its host died."""

from __future__ import annotations

import time

from p2psched.model import chunks, items
from p2psched.model.job import ProgramWork
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.run.handed import Running
from p2psched.run.host import frames
from p2psched.run.host.shared import State
from p2psched.run.host_handle import HostHandle


def blame(
    host: HostHandle, running: Running, state: State | None, code: int, item: bytes
) -> tuple[list[frames.Piece], TaskSet]:
    """For one batch of a dead host, once all is reported that the host has noted: what is to be
    reported of the task that ran, and the task if it began and may run again.

    `state`: the last notes; `code` and `item`: how the host ended, and what it wrote.
    """
    batch = running.batch
    if state is None or not state.running or state.batch != batch.id:
        return [], EMPTY
    ran = running.left & TaskSet.of(state.index, state.index + 1)
    if not ran:
        return [], EMPTY
    if running.stopping or host.aimed_at not in (None, batch.id):
        # It was ended by us, or because of a batch that was over in the instant it was ended.
        return [], ran
    spec = batch.spec
    if spec.start and isinstance(spec.work, ProgramWork) and running.expired is None:
        return [], ran  # its program is a process of its own: nobody saw how that ended
    if frames.LAPSED in items.unpack(item)[0]:
        return [], ran  # and nobody asks how it ended
    cause, item = _cause(code, item)
    if running.expired is not None:
        if running.expired != ran.first:
            # Hit because the one before it ended in the instant its time was over.
            return [], ran
        cause = frames.CAUSES.index(running.expired_as.value)
        header, value, stdout, stderr = items.unpack(item)
        limit = f"ended after its limit of {batch.spec.timeout_ms} ms"
        header["message"] = running.why if cause == frames.STALLED else limit
        item = items.pack(header, value, stdout, stderr)
    busy_us = max(0, time.monotonic_ns() - state.started_ns) // 1000
    return [(ran.first, ran.first + 1, cause, busy_us, chunks.pack([item]))], EMPTY


def _cause(code: int, item: bytes) -> tuple[int, bytes]:
    """What its starter says, if a limit was what ended it; else what its end looks like."""
    header, value, stdout, stderr = items.unpack(item)
    said = header.pop("ended_as", None)
    if said not in {frames.OOM, frames.SIGNAL}:
        return (frames.EXIT if code >= 0 else frames.SIGNAL), item
    return int(said), items.pack(header, value, stdout, stderr)
