"""What callers ask about jobs that have ended: parts of `messages`."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet


class ForgetJob(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """`job rm`. Refused while the job runs."""

    job: JobId


class PinJob(msgspec.Struct, frozen=True, array_like=True, tag=16):
    job: JobId
    pinned: bool


class RetryJob(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Run failed tasks again, and those whose results are lost; only `tasks` if it names some."""

    job: JobId
    tasks: TaskSet = TaskSet()
