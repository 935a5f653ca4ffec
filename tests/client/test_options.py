"""What a function brings along is what its job is told, however it is handed over."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import pytest

from p2psched.client.client import Client
from p2psched.client.functions import MapOptions, calls, pack
from p2psched.client.job import Job
from p2psched.client.options import Options, unwrap
from p2psched.client.task import task
from p2psched.model.errors import UsageError
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.needs import Needs
from p2psched.model.retry import TimeLimits
from p2psched.run.host.tasks import TaskFunction, TaskOptions
from tests.client.fake import FakeSession, opened, submit, turns

EACH: dict[str, Any] = {
    "retries": 2,
    "timeout_s": 1.5,
    "cpus": 2,
    "name": "other",
    "policy": "round-robin",
    "needs": Needs(gpus=1),
    "checkpoint": True,
    "retry": {"exit": 3},
    "times": TimeLimits(total_ms=60_000),
    "limits": {"mem": "64M"},
    "pace": {"heartbeat": "5s"},
    "start": "once",
    "max_disconnect_ms": 5_000,
    "hold": Hold("scarce", 2),
    "copies": 1,
    "lease": "10s",
    "replicas": 2,
    "speculate": True,
    "priority": 3,
    "preemptible": "30s",
    "after": (JobId("a" * 32),),
    "on_parent_fail": "continue",
}


def alone(option: str) -> dict[str, Any]:
    """This option, with what it can't be without."""
    needed: dict[str, dict[str, Any]] = {
        "lease": {"start": "exclusive"},
        "preemptible": {"checkpoint": True},
        "on_parent_fail": {"after": (JobId("a" * 32),)},
    }
    return {option: EACH[option]} | needed.get(option, {})


def half(number: int) -> float:
    return number / 2


async def later(number: int) -> int:
    return number


def spec_by(**options: Any) -> JobSpec:
    """As the job would be if `map` were told."""
    return pack(half, calls([1]), **cast("MapOptions", options)).spec


class Caught(Client):
    """Keeps what it would submit."""

    specs: list[JobSpec]

    async def submit_spec(self, spec: JobSpec, **_: Any) -> Job:
        self.specs = [*getattr(self, "specs", []), spec]
        return cast("Job", None)


def test_every_option_of_a_task_is_tried_here() -> None:
    assert EACH.keys() == set(TaskOptions._fields) == Options.__dataclass_fields__.keys()


@pytest.mark.parametrize("option", EACH)
def test_map_tells_what_the_task_brings(option: str) -> None:
    chosen = alone(option)
    client = Caught("127.0.0.1:1")
    asyncio.run(client.map(task(**chosen)(half), [1]))
    (spec,) = client.specs
    assert _without_caller(spec) == _without_caller(spec_by(**chosen))
    assert _without_caller(spec) != _without_caller(spec_by())


@pytest.mark.parametrize("option", EACH)
@pytest.mark.parametrize("count", [1, 3])
def test_calls_of_one_turn_tell_it_as_well(option: str, count: int) -> None:
    chosen = alone(option)
    _, own = unwrap(task(**chosen)(half))
    told = {name: getattr(own, name) for name in EACH}

    async def main() -> list[JobSpec]:
        session = FakeSession()
        async with opened(session) as pipeline:
            for number in range(count):
                submit(pipeline, half, number, **told)
            await turns()
            return session.submits

    (spec,) = asyncio.run(main())
    expected = pack(half, calls(range(count)), **cast("MapOptions", chosen)).spec
    assert _without_caller(spec) == _without_caller(expected)


def test_what_map_is_told_goes_before_what_the_task_brings() -> None:
    client = Caught("127.0.0.1:1")
    brings = task(start="once", cpus=3)(half)
    asyncio.run(client.map(brings, [1], cpus=2))
    assert (client.specs[0].cpus, client.specs[0].start) == (2, spec_by(start="once").start)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"needs": "a gpu"}, "p2psched.Needs"),
        ({"times": 5}, "p2psched.TimeLimits"),
        ({"limits": {"colour": 1}}, "no limit 'colour'"),
        ({"start": "twice"}, "once"),
        ({"retry": {"bad luck": 1}}, "bad luck"),
    ],
)
def test_a_wrong_option_is_named_when_the_task_is_handed_over(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        unwrap(task(**wrong)(half))


def test_a_worker_gets_no_object_of_the_callers() -> None:
    make, (function, settings) = cast(
        "tuple[type[TaskFunction[..., object]], tuple[Any, TaskOptions]]",
        task(**EACH)(half).__reduce__(),
    )
    assert make is TaskFunction
    assert function is half
    plain = (int, float, str, bool, type(None))
    assert all(isinstance(value, plain) for value in settings)
    assert settings.retries == EACH["retries"]


def _without_caller(spec: JobSpec) -> tuple[object, ...]:
    """All of it but who submitted it, and the call itself."""
    fields = [name for name in spec.__struct_fields__ if name not in {"submitter", "work"}]
    return tuple(getattr(spec, name) for name in fields)


@pytest.mark.parametrize("function", [later, task(later), partial(later, 1)])
def test_an_async_function_is_refused_before_it_travels(function: Any) -> None:
    with pytest.raises(UsageError, match="is async, and workers have no event loop: pass a plain"):
        unwrap(function)
