"""Tasks that move from their owner to another peer: the command, and what follows (`commands`)."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet

Grant = int  # as in `commands`


class Transfer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=55):
    """Its owner, who alone may propose it, has not started these tasks under `grant` and starts
    none of them before it knows the outcome: a live incarnation of `peer` shall own them."""

    job: JobId
    grant: Grant
    tasks: TaskSet
    peer: PeerId
    incarnation: int


class Moved(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=80):
    """`peer` has not started these tasks, and `taker` owns them now, under `to`. A `Granted` says
    the same of the new grant."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet
    to: Grant
    taker: PeerId
