"""Options that every command which talks to a cluster has, and how texts become values."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Concatenate, Final, ParamSpec

import typer

from p2psched.cli.complete import complete_addresses
from p2psched.cli.output import Output
from p2psched.model.errors import UsageError
from p2psched.store.records import default_runtime_dir

P = ParamSpec("P")

PATIENCE: Final = "10s"
RUNTIME_VARIABLE: Final = "P2PSCHED_RUNTIME_DIR"
SECRET_VARIABLE: Final = "P2PSCHED_SECRET_FILE"  # noqa: S105 (a name, no secret)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|min|h|d)?")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])?(?:i?B)?")
_UNIT_S: Final = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, None: 1}
DURATION_S_MAX: Final = 3650 * 86_400.0

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people, for programs, or ids alone.")
]
PeerOption = Annotated[
    str | None,
    typer.Option(
        "--peer",
        metavar="HOST:PORT",
        envvar="P2PSCHED_PEER",
        autocompletion=complete_addresses,
        help="A peer to talk to. Default: one that runs on this machine.",
    ),
]
SecretOption = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        envvar=SECRET_VARIABLE,
        help="The cluster's secret. Default: that of the local peer.",
    ),
]
StaleOption = Annotated[
    bool,
    typer.Option(
        "--stale", help="What the peer knows that answers, also without a majority; says how old."
    ),
]
PatienceOption = Annotated[
    str,
    typer.Option(
        "--patience", metavar="DURATION", help="How long to wait for a peer that can answer."
    ),
]


AtOption = Annotated[
    int | None,
    typer.Option(
        "--at", metavar="INDEX", min=1, help="As it was once this entry of the ledger was applied."
    ),
]


def one_time(target: Target, at: int | None) -> None:
    """Raises UsageError if a read is asked for as of two times."""
    if at is not None and target.stale:
        raise UsageError("--at tells of an entry, --stale of now: give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to talk to, and how to answer."""

    peer: str | None
    secret_file: Path | None
    patience_s: float
    output: Output
    stale: bool = False

    @property
    def runtime_dir(self) -> Path:
        return runtime_dir()


def runtime_dir() -> Path:
    """Where the records of local peers are."""
    given = os.environ.get(RUNTIME_VARIABLE)
    return Path(given).expanduser().absolute() if given else default_runtime_dir(os.environ)


def talks_to_peers(function: Callable[Concatenate[Target, P], None]) -> Callable[..., None]:
    """Make a command of a function whose first argument is the target: its four options are added
    to those of the function."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        taken = {name: kwargs.pop(name) for name in _COMMON}
        target = _target(**taken)  # type: ignore[arg-type]  # the parser made them by _COMMON
        function(target, *args, **kwargs)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    parameters = [
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
        *_COMMON.values(),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def with_options(
    values: type[object], name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass as further options, and the function one argument
    `name` with all of them. A field is its option: annotated as a parameter would be."""
    fields = list(inspect.signature(values, eval_str=True).parameters.values())

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        def command(*args: object, **kwargs: object) -> None:
            taken = {field.name: kwargs.pop(field.name) for field in fields}
            function(*args, **kwargs, **{name: values(**taken)})

        functools.update_wrapper(command, function)
        own = inspect.signature(function, eval_str=True).parameters.values()
        others = [parameter for parameter in own if parameter.name != name]
        parameters = [*others, *fields]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return wrap


def reads_from_peers(function: Callable[Concatenate[Target, P], None]) -> Callable[..., None]:
    """As `talks_to_peers`, of a command that only reads: with `--stale`."""

    def command(target: Target, /, *args: P.args, **kwargs: P.kwargs) -> None:
        stale = bool(kwargs.pop("stale"))
        function(replace(target, stale=stale), *args, **kwargs)

    functools.update_wrapper(command, function)
    signature = inspect.signature(function, eval_str=True)
    stale = _option("stale", StaleOption, default=False)
    parameters = [*signature.parameters.values(), stale]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    return talks_to_peers(command)


def _option(name: str, annotation: object, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


_COMMON: Final = {
    "output": _option("output", OutputOption, Output.TABLE),
    "peer": _option("peer", PeerOption, None),
    "secret_file": _option("secret_file", SecretOption, None),
    "patience": _option("patience", PatienceOption, PATIENCE),
}


def _target(*, output: Output, peer: str | None, secret_file: Path | None, patience: str) -> Target:
    patience_s = duration(patience, "--patience")
    return Target(peer=peer, secret_file=secret_file, patience_s=patience_s, output=output)


def byte_count(text: str, option: str) -> int:
    """Bytes in `512M`, `16G`, `1.5T` or `1000000` (binary units). Raises UsageError."""
    found = _SIZE.fullmatch(text.strip()) if len(text) <= 32 else None
    if not found:
        raise UsageError(f"{option} {text[:32]!r} is no size: write it like 512M, 16G or 1T")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def keep_ms(text: str) -> int:
    """Milliseconds of `--keep-results`; 0 is fine: forget it as soon as it has ended."""
    return 0 if text.strip() in {"0", "0s"} else round(duration(text, "--keep-results") * 1000)


def duration(text: str, option: str) -> float:
    """Seconds in `90s`, `1.5m`, `2h`, `500ms` or `90`. Raises UsageError."""
    found = _DURATION.fullmatch(text.strip()) if len(text) <= 32 else None
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not 0 < seconds <= DURATION_S_MAX:
        raise UsageError(
            f"{option} {text[:32]!r} is no duration: write it like 90s, 1.5m, 2h, 500ms or 90 "
            "(seconds), more than nothing and at most ten years"
        )
    return seconds
