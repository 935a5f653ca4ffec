"""What `Client.map`, `submit_program` and the others may be told of all tasks."""

from __future__ import annotations

from typing import TypedDict

from p2psched.client.after import OnParentFail, Parents
from p2psched.client.isolation import Limits
from p2psched.client.modules import Choice
from p2psched.client.pacing import Pace
from p2psched.client.precedence import Preemptible
from p2psched.client.retries import Retry
from p2psched.model.hold import Hold
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.retry import TimeLimits


class TaskOptions(TypedDict, total=False):
    """Of functions and programs alike; see `Client.map`."""

    name: str | None
    timeout_s: float | None
    hold: Hold | None
    policy: str
    needs: Needs | None
    retry: Retry | None
    times: TimeLimits | None
    limits: Limits | None
    max_disconnect_ms: int | None
    pace: Pace | None
    start: Start | str
    lease: float | str | None
    replicas: int
    speculate: bool
    priority: int
    preemptible: Preemptible
    after: Parents
    on_parent_fail: OnParentFail


class MapOptions(TaskOptions, total=False):
    """What `Client.map` may be told of all tasks; see there."""

    retries: int | None
    cpus: int | None
    copies: int
    modules: Choice
    checkpoint: bool | None
