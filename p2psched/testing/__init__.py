"""Simulate clusters, check histories and play scripts; for your tests as for ours.

    from p2psched.testing import Faults, SimCluster, TaskSet, run_seed, sim_job

Names in `__all__` are for everybody; the modules below may change between two versions. Nothing
here opens a socket, starts a process (but for `run_seeds` with several jobs) or reads a clock.
`docs/simulation.md` says what is simulated.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2psched.model.taskset import TaskSet as TaskSet
    from p2psched.testing.faults import Faults as Faults
    from p2psched.testing.linear_history import History as History
    from p2psched.testing.linear_history import Model as Model
    from p2psched.testing.linear_models import Locks as Locks
    from p2psched.testing.linear_models import Queues as Queues
    from p2psched.testing.linear_models import Registers as Registers
    from p2psched.testing.linear_models import Tasks as Tasks
    from p2psched.testing.linearizable import check as check
    from p2psched.testing.promises import BrokenPromiseError as BrokenPromiseError
    from p2psched.testing.run import Failure as Failure
    from p2psched.testing.run import run_seed as run_seed
    from p2psched.testing.run import run_seeds as run_seeds
    from p2psched.testing.script.language import play as play
    from p2psched.testing.sim import SimCluster as SimCluster
    from p2psched.testing.sim import SimulationError as SimulationError
    from p2psched.testing.sim_disk import SimDisk as SimDisk
    from p2psched.testing.sim_jobs import sim_job as sim_job
    from p2psched.testing.sim_report import Report as Report
    from p2psched.testing.simulate import Options as Options
    from p2psched.testing.virtual_time import run_virtually as run_virtually

__all__ = [
    "BrokenPromiseError",
    "Failure",
    "Faults",
    "History",
    "Locks",
    "Model",
    "Options",
    "Queues",
    "Registers",
    "Report",
    "SimCluster",
    "SimDisk",
    "SimulationError",
    "TaskSet",
    "Tasks",
    "check",
    "play",
    "run_seed",
    "run_seeds",
    "run_virtually",
    "sim_job",
]

_HOME = {
    "BrokenPromiseError": "promises",
    "Failure": "run",
    "Faults": "faults",
    "History": "linear_history",
    "Locks": "linear_models",
    "Model": "linear_history",
    "Options": "simulate",
    "Queues": "linear_models",
    "Registers": "linear_models",
    "Report": "sim_report",
    "SimCluster": "sim",
    "SimDisk": "sim_disk",
    "SimulationError": "sim",
    "Tasks": "linear_models",
    "check": "linearizable",
    "play": "script.language",
    "run_seed": "run",
    "run_seeds": "run",
    "run_virtually": "virtual_time",
    "sim_job": "sim_jobs",
}


def __getattr__(name: str) -> object:
    # Lazily: who only checks a history needs no simulator.
    if name == "TaskSet":
        return importlib.import_module("p2psched.model.taskset").TaskSet
    if name not in _HOME:
        raise AttributeError(f"module 'p2psched.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
