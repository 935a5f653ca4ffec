"""`@task`: a function that brings its options along.

@p2psched.task(retries=3, timeout_s=60)
def train(rate): ...

train(0.1)                                             # here and now, as ever
await client.map(train, rates)                         # in the cluster, with three retries
await client.map(train.options(cpus=4), rates)         # and with four cores
"""

from __future__ import annotations

from p2psched.run.host.tasks import TaskFunction, TaskOptions, task

__all__ = ["TaskFunction", "TaskOptions", "task"]
