"""How the tasks of a function are run: what it brings along, as `@p2psched.task` has it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast, runtime_checkable

from p2psched.client.after import ABORT, OnParentFail, parents_of
from p2psched.client.functions import MapOptions
from p2psched.client.isolation import shut_in
from p2psched.client.pacing import pace_rules
from p2psched.client.precedence import Preemptible
from p2psched.client.resolving import start_of
from p2psched.client.retries import policy as retry_policy
from p2psched.model.errors import UsageError
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.model.isolation import Isolation
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.pace_rules import PaceRules
from p2psched.model.retry import RetryPolicy, TimeLimits

Function = Callable[..., object] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How each task of a job is run: see `Client.map`."""

    retries: int = 0
    timeout_s: float | None = None
    cpus: int = 1
    name: str | None = None
    policy: str = ""
    needs: Needs | None = None
    checkpoint: bool = False
    retry: RetryPolicy | None = None
    times: TimeLimits | None = None
    limits: Isolation | None = None
    pace: PaceRules | None = None
    start: Start = Start.LEAST
    max_disconnect_ms: int | None = None
    hold: Hold | None = None
    copies: int = 2
    lease: float | str | None = None
    replicas: int = 1
    speculate: bool = False
    priority: int = 0
    preemptible: Preemptible = False
    after: tuple[JobId, ...] = ()
    on_parent_fail: OnParentFail = ABORT

    @property
    def are_usual(self) -> bool:
        """For certain; as quick to say as nothing else about so many fields."""
        return self is DEFAULTS

    def told(self) -> MapOptions:
        """What is not as usual."""
        if self.are_usual:
            return {}
        said = {name: getattr(self, name) for name in _USUAL}
        return cast("MapOptions", {name: it for name, it in said.items() if it != _USUAL[name]})


@runtime_checkable
class TaskOptions(Protocol):
    """`Options` of another make."""

    @property
    def retries(self) -> int: ...
    @property
    def timeout_s(self) -> float | None: ...
    @property
    def cpus(self) -> int: ...
    @property
    def name(self) -> str | None: ...


class HasOptions(Protocol):
    """A function that brings its own options, as what `@p2psched.task` makes does."""

    @property
    def function(self) -> Function: ...
    @property
    def settings(self) -> TaskOptions: ...


_USUAL: Final[dict[str, Any]] = {field.name: field.default for field in dataclasses.fields(Options)}
SINGLE: Final = frozenset(
    {"name", "retries", "timeout_s", "cpus"}
)  # what `functions.pack_single` knows
DEFAULTS: Final = Options()


def unwrap(function: object, defaults: Options = DEFAULTS) -> tuple[Function, Options]:
    """What to call, and how: an object with a `function` and its own `settings` brings both.
    Raises UsageError for what can't be called."""
    if isinstance(function, str):
        return function, defaults
    inner = getattr(function, "function", None)
    if inspect.iscoroutinefunction(inner if inner is not None else function):
        raise UsageError(
            f"{function!r} is async, and workers have no event loop: pass a plain function, "
            "which may call asyncio.run"
        )
    found = getattr(function, "settings", None)
    if inner is not None and isinstance(found, TaskOptions):
        return inner, found if isinstance(found, Options) else _options(found)
    if not callable(function):
        raise UsageError(
            f"{function!r} is not a function: pass one, or a path like package.module:name"
        )
    return function, defaults


def _options(found: TaskOptions) -> Options:
    """As the caller wrote them; raises UsageError."""
    said = {name: getattr(found, name, usual) for name, usual in _USUAL.items()}
    for name, kind in (("needs", Needs), ("times", TimeLimits), ("hold", Hold)):
        if said[name] is not None and not isinstance(said[name], kind):
            raise UsageError(f"{name} is a p2psched.{kind.__name__}, not {said[name]!r}")
    said["limits"], said["needs"] = shut_in(said["limits"], said["needs"])
    said["retry"] = retry_policy(said["retry"])
    said["pace"] = pace_rules(said["pace"])
    said["after"] = parents_of(said["after"])
    said["start"] = start_of(said["start"] or Start.LEAST)
    return Options(**said)
