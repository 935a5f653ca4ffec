"""A scheduler without a head: nothing accepted is lost, nothing commits twice.

    from p2psched import Client, Config, Executor, Peer

Everything else that is public is imported from the module that defines it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from p2psched.model.version import VERSION

if TYPE_CHECKING:
    from p2psched.client.client import Client as Client
    from p2psched.client.executor import ClusterUnreachable as ClusterUnreachable
    from p2psched.client.executor import Executor as Executor
    from p2psched.client.files import File as File
    from p2psched.client.futures import Task as Task
    from p2psched.client.job import Job as Job
    from p2psched.client.listeners import listen as listen
    from p2psched.client.listeners import on as on
    from p2psched.client.results import TaskResult as TaskResult
    from p2psched.client.task import task as task
    from p2psched.embed.config import Config as Config
    from p2psched.embed.peer import Peer as Peer
    from p2psched.model.hold import Hold as Hold
    from p2psched.model.needs import Needs as Needs
    from p2psched.run.host import checkpoint as checkpoint
    from p2psched.run.host.words import progress as progress

__version__ = VERSION
__all__ = [
    "Client",
    "ClusterUnreachable",
    "Config",
    "Executor",
    "File",
    "Hold",
    "Job",
    "Needs",
    "Peer",
    "Task",
    "TaskResult",
    "__version__",
    "checkpoint",
    "listen",
    "on",
    "progress",
    "task",
]

_HOME = {
    "Client": "p2psched.client.client",
    "ClusterUnreachable": "p2psched.client.executor",
    "Config": "p2psched.embed.config",
    "Executor": "p2psched.client.executor",
    "File": "p2psched.client.files",
    "Hold": "p2psched.model.hold",
    "Needs": "p2psched.model.needs",
    "Job": "p2psched.client.job",
    "Peer": "p2psched.embed.peer",
    "Task": "p2psched.client.futures",
    "TaskResult": "p2psched.client.results",
    "listen": "p2psched.client.listeners",
    "on": "p2psched.client.listeners",
    "progress": "p2psched.run.host.words",
    "task": "p2psched.client.task",
}


def __getattr__(name: str) -> object:
    # Lazily: the peer's own modules and the workers must not pay for the client.
    if name == "checkpoint":  # a module
        return importlib.import_module("p2psched.run.host.checkpoint")
    if name not in _HOME:
        raise AttributeError(f"module 'p2psched' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
