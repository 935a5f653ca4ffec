"""All placement policies by name: those that come with p2psched, and users' own."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from p2psched.core.policies.adaptive import Adaptive
from p2psched.core.policies.base import Policy
from p2psched.core.policies.least_connections import LeastConnections
from p2psched.core.policies.node_load import NodeLoad
from p2psched.core.policies.power_of_two import PowerOfTwo
from p2psched.core.policies.pull import Pull
from p2psched.core.policies.queue_length import QueueLength
from p2psched.core.policies.response_time import ResponseTime
from p2psched.core.policies.round_robin import RoundRobin
from p2psched.core.policies.task_type import TaskType
from p2psched.core.policies.weighted import Weighted
from p2psched.model.errors import UsageError

ADAPTIVE: Final = Adaptive()
_BUILT_IN: Final[tuple[Policy, ...]] = (
    ADAPTIVE,
    RoundRobin(),
    LeastConnections(),
    ResponseTime(),
    QueueLength(),
    NodeLoad(),
    TaskType(),
    Weighted(),
    PowerOfTwo(),
    Pull(),
)
POLICIES: Final = MappingProxyType({policy.name: policy for policy in _BUILT_IN})


def with_own(own: Iterable[Policy]) -> dict[str, Policy]:
    """Those that come with p2psched and these. Raises UsageError if two have one name."""
    found = dict(POLICIES)
    for policy in own:
        if policy.name in found:
            raise UsageError(f"there is a policy {policy.name!r} already: give yours another name")
        found[policy.name] = policy
    return found
