"""What of the peer's environment reaches users' code: an allow-list, so no secret of ours does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

# Marks every process that a pool started, so that what outlived its starter can be found.
POOL_VARIABLE: Final = "P2P_POOL"

# Where tasks save theirs, each in a folder of its own: see `run.host.checkpoint`.
CHECKPOINTS_VARIABLE: Final = "P2P_CHECKPOINTS"

_NAMES: Final = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_PREFIXES: Final = ("LC_", "PYTHON")


def environment(
    own: Mapping[str, str], *, folder: str, peer_name: str, passed: Collection[str] = ()
) -> dict[str, str]:
    """The environment of the starter, and through it of all tasks. `passed`: what the peer was told
    to pass on besides."""
    kept = {
        name: value
        for name, value in own.items()
        if name in _NAMES or name in passed or name.startswith(_PREFIXES)
    }
    saved = str(Path(folder).parent / "checkpoints")
    return {**kept, POOL_VARIABLE: folder, CHECKPOINTS_VARIABLE: saved, "P2P_PEER": peer_name}
