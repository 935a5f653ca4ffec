"""A scheduler without a head: nothing accepted is lost, nothing commits twice.

    from p2psched import Client, Config, Peer

Everything else that is public is imported from the module that defines it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from p2psched.model.version import VERSION

if TYPE_CHECKING:
    from p2psched.client.client import Client as Client
    from p2psched.client.client import Job as Job
    from p2psched.client.results import TaskResult as TaskResult
    from p2psched.embed.config import Config as Config
    from p2psched.embed.peer import Peer as Peer

__version__ = VERSION
__all__ = ["Client", "Config", "Job", "Peer", "TaskResult", "__version__"]

_HOME = {
    "Client": "p2psched.client.client",
    "Config": "p2psched.embed.config",
    "Job": "p2psched.client.client",
    "Peer": "p2psched.embed.peer",
    "TaskResult": "p2psched.client.results",
}


def __getattr__(name: str) -> object:
    # Lazily: the peer's own modules and the workers must not pay for the client.
    if name not in _HOME:
        raise AttributeError(f"module 'p2psched' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
