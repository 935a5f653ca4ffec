"""Makes `import p2psched` in a task mean what it means at the caller.

`File`, `task` and `checkpoint` are files that the worker has loaded under its private name. They
are entered under their public names too, so that there is one of each whoever imports it; and
where p2psched is not installed, a small module of that name offers these, `progress`, and nothing
else.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

from . import checkpoint, files, tasks, words

_NAMES: Final[dict[str, dict[str, object]]] = {
    "p2psched": {
        "File": files.File,
        "checkpoint": checkpoint,
        "progress": words.progress,
        "task": tasks.task,
    },
    "p2psched.client": {},
    "p2psched.client.files": {"File": files.File},
    "p2psched.client.task": {
        "TaskFunction": tasks.TaskFunction,
        "TaskOptions": tasks.TaskOptions,
        "task": tasks.task,
    },
}


class StandIn:
    """Finder and loader (by shape: `importlib.abc` is large). Asked last: an installed p2psched is
    found before."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: types.ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        outer = sys.modules.get("p2psched")
        ours = outer is None or isinstance(getattr(outer, "__loader__", None), StandIn)
        if fullname not in _NAMES or not ours:
            return None
        loader: Any = self  # by shape
        return importlib.machinery.ModuleSpec(fullname, loader, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The usual one."""

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(_NAMES[module.__name__])


def install() -> None:
    """Once in a process that runs users' functions."""
    sys.modules[files.HOME] = sys.modules[files.__name__]
    sys.modules[tasks.HOME] = sys.modules[tasks.__name__]
    sys.modules[checkpoint.HOME] = sys.modules[checkpoint.__name__]
    sys.modules[words.HOME] = sys.modules[words.__name__]
    sys.meta_path.append(StandIn())
