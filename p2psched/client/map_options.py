"""What `Client.map` and the others may be told of all tasks."""

from __future__ import annotations

from typing import TypedDict

from p2psched.client.isolation import Limits
from p2psched.client.modules import Choice
from p2psched.client.pacing import Pace
from p2psched.client.precedence import Preemptible
from p2psched.client.retries import Retry
from p2psched.model.hold import Hold
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.retry import TimeLimits


class MapOptions(TypedDict, total=False):
    """What `Client.map` may be told of all tasks; see there."""

    name: str | None
    retries: int | None
    timeout_s: float | None
    cpus: int | None
    copies: int
    hold: Hold | None
    policy: str
    needs: Needs | None
    modules: Choice
    retry: Retry | None
    times: TimeLimits | None
    limits: Limits | None
    checkpoint: bool | None
    max_disconnect_ms: int | None
    pace: Pace | None
    start: Start | str
    lease: float | str | None
    replicas: int
    speculate: bool
    priority: int
    preemptible: Preemptible
