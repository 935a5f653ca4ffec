"""Limits of tasks, and sandboxes, as people write them.

    shut_in({"mem": "2G", "files": 256, "procs": 64, "cpu": "30s", "fsize": "1G", "core": 0}, None)
    shut_in({"sandbox": "bwrap", "network": False, "home": "task"}, None)

`mem` may be "need": as much as the job said that a task takes (`Needs.memory_mib`, `--mem`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from p2psched.client.durations import duration_ms
from p2psched.model.errors import UsageError
from p2psched.model.isolation import SANDBOX_LABEL, Isolation
from p2psched.model.limits import MIB
from p2psched.model.needs import Needs

Value = str | int | float | bool
Limits = Isolation | Mapping[str, Value]

NEED: Final = "need"  # for `mem`
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)([KMGT]?)(?:i?B)?")
_HOMES: Final = {"task": True, "peer": False}


def shut_in(limits: Limits | None, needs: Needs | None) -> tuple[Isolation | None, Needs | None]:
    """What stands in a spec, and what the job then needs of its peers. Raises UsageError."""
    if limits is None:
        return None, needs
    try:
        found = limits if isinstance(limits, Isolation) else _isolation(limits, needs)
        if found.sandbox:
            needs = _requiring(needs or Needs(), found.sandbox)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return (found if found != Isolation() else None), needs


def limits_of_words(texts: list[str]) -> dict[str, Value]:
    """Of `NAME=VALUE`, each. Raises UsageError."""
    found: dict[str, Value] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in LIMITS:
            raise UsageError(
                f"--limit {text[:64]!r} is no limit: write NAME=VALUE, and NAME is one of "
                f"{', '.join(LIMITS)}"
            )
        if name in found:
            raise UsageError(f"--limit names {name!r} twice")
        found[name] = value
    return found


def _isolation(limits: Mapping[str, Value], needs: Needs | None) -> Isolation:
    """Raises ValueError, UsageError."""
    unknown = [name for name in limits if name not in _FIELDS]
    if unknown:
        raise UsageError(f"there is no limit {unknown[0]!r}: limits are {', '.join(_FIELDS)}")
    fields: dict[str, object] = {}
    for name, value in limits.items():
        field, read = _FIELDS[name]
        if name == "mem" and value == NEED:
            if needs is None or not needs.memory_mib:
                raise UsageError("mem=need is what a task takes: say how much that is, with --mem")
            fields[field] = needs.memory_mib * MIB
        else:
            fields[field] = read(value, name)
    return Isolation(**fields)  # type: ignore[arg-type]  # each field has a reader of its own


def _requiring(needs: Needs, sandbox: str) -> Needs:
    labels = dict(needs.require)
    if labels.setdefault(SANDBOX_LABEL, sandbox) != sandbox:
        raise UsageError(f"the label {SANDBOX_LABEL!r} is required by the sandbox: leave it away")
    return msgspec.structs.replace(needs, require=tuple(sorted(labels.items())))


# --- values ---------------------------------------------------------------------------------------


def _bytes(value: Value, name: str) -> int:
    if type(value) is int:
        return value
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise UsageError(f"{name}={str(value)[:32]} is no size: write it like 512M, 2G or 0")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def _count(value: Value, name: str) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise UsageError(f"{name}={text[:32]} is no number: write it like {name}=64")
    return int(text)


def _seconds(value: Value, name: str) -> int:
    """Whole ones, rounded up: the kernel counts no others."""
    text = f"{value}s" if str(value).isdigit() else str(value)
    del name
    return -(-duration_ms(text) // 1000)


def _home(value: Value, name: str) -> bool:
    if value not in _HOMES:
        raise UsageError(f"{name} is the {' or the '.join(_HOMES)}'s: not {str(value)[:32]!r}")
    return _HOMES[str(value)]


def _text(value: Value, name: str) -> str:
    del name
    return str(value)


def _flag(value: Value, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is True or False, not {str(value)[:32]!r}")
    return value


_FIELDS: Final[dict[str, tuple[str, Callable[[Value, str], object]]]] = {
    "mem": ("memory", _bytes),
    "files": ("files", _count),
    "procs": ("processes", _count),
    "cpu": ("cpu_s", _seconds),
    "fsize": ("file_size", _bytes),
    "core": ("core", _bytes),
    "home": ("own_home", _home),
    "sandbox": ("sandbox", _text),
    "network": ("network", _flag),
}
LIMITS: Final = ("mem", "files", "procs", "cpu", "fsize", "core")
