"""Placement policies that users bring: of installed packages, and of one file.

What stands there runs in the peer, so it is trusted as p2psched itself. All peers of a cluster
should have the same: whichever leads decides, and goes by `adaptive` for a policy that it lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from p2psched.core.policies.base import Policy
from p2psched.core.policies.custom import custom
from p2psched.core.policies.registry import with_own
from p2psched.model.errors import UsageError

GROUP: Final = "p2psched.policies"


def load_policies(file: str | None) -> dict[str, Policy]:
    """All that this peer knows. Raises UsageError for what is no policy."""
    own = _installed() if _may_be_installed() else []
    if file is not None:
        own.append(policy_file(Path(file)))
    return with_own(own)


def _installed() -> list[Policy]:
    from importlib.metadata import entry_points  # noqa: PLC0415 (2 MiB that most peers never need)

    return [_of_entry(point.value, point.load()) for point in entry_points(group=GROUP)]


def _may_be_installed() -> bool:
    """True if some package that could be imported names the group, in the file where such stand."""
    for folder in map(Path, sys.path):
        if folder.suffix == ".egg" or folder.is_file():
            return True  # another form: the standard library knows it
        for kind in ("dist", "egg"):
            for file in folder.glob(f"*.{kind}-info/entry_points.txt"):
                if GROUP in file.read_text(errors="replace"):
                    return True
    return False


def policy_file(path: Path) -> Policy:
    """Raises UsageError."""
    import runpy  # noqa: PLC0415 (as above)

    try:
        values = runpy.run_path(str(path))
    except Exception as error:  # a user's code may raise anything
        raise UsageError(f"{path} is no policy: {type(error).__name__}: {error}") from error
    return custom(values, str(path))


def _of_entry(where: str, value: object) -> Policy:
    """A module of the form of a policy file, or a mapping with its names."""
    values = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    return custom(values, where)
