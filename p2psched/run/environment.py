"""What of the peer's environment reaches users' code: an allow-list, so no secret of ours does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

# Marks every process that a pool started, so that what outlived its starter can be found.
POOL_VARIABLE: Final = "P2P_POOL"

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
    return {**kept, POOL_VARIABLE: folder, "P2P_PEER": peer_name}
