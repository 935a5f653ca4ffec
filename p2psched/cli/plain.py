"""What most values of a command line are, made without the parser's own machinery for it.

Some versions of the parser hand each text to a library that is made for documents of many fields,
and to load it takes longer than all else that a command like `jobs` does. So plain texts, numbers,
choices and names of files become values here. Whatever is wrong or unusual is left to the parser,
and so are its words for it. Where it has no such machinery, nothing here is used.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, cast, get_args, get_origin

_DIGITS: Final = 18


class Constraints(Protocol):
    """As an option was declared."""

    parser: object
    min: float | None
    max: float | None
    clamp: bool
    exists: bool
    file_okay: bool
    dir_okay: bool
    writable: bool
    resolve_path: bool
    allow_dash: bool
    path_type: object


class Descriptor(Protocol):
    annotation: object
    parameter_info: Constraints


class Usual(Protocol):
    """The parser's own way."""

    def coerce(self, value: object, param: object, ctx: object) -> object: ...


class Parameter(Protocol):
    """What is used of one, where it has it."""

    multiple: bool
    nargs: int
    type_descriptor: Descriptor
    get_runtime_param: Callable[[], Usual]


class Plain:
    """The values of one parameter."""

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter
        self._usual = parameter.get_runtime_param

    def __call__(self) -> Plain:
        """In the place of what the parser asks for its own way."""
        return self

    def coerce(self, value: object, param: object, ctx: object) -> object:
        """As the parser's own, which is asked for what isn't plain."""
        parameter = self._parameter
        is_many = parameter.multiple or parameter.nargs == -1
        if value is None:
            return () if is_many else None
        found = self._plain(value, is_many=is_many)
        return self._usual().coerce(value, param=param, ctx=ctx) if found is None else found

    def _plain(self, value: object, *, is_many: bool) -> object | None:
        described = self._parameter.type_descriptor
        annotation, info = described.annotation, described.parameter_info
        if info.parser is not None:
            return None
        if not is_many:
            return plain(value, annotation, info)
        (inner,) = get_args(annotation) if get_origin(annotation) is list else (None,)
        if inner is None or not isinstance(value, list | tuple):
            return None
        found = [plain(each, inner, info) for each in value]
        return None if any(each is None for each in found) else found


def plain(value: object, annotation: object, info: Constraints) -> object | None:
    """None: it is for the parser."""
    if annotation is str:
        return value if isinstance(value, str) else None
    if annotation is int:
        return _number(value, info)
    if annotation is Path:
        return _file(value, info)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choice(value, annotation)
    return None


def _number(value: object, info: Constraints) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value) if len(value) <= _DIGITS else None
    if type(value) is not int or info.clamp:
        return None
    is_least = info.min is None or value >= info.min
    is_most = info.max is None or value <= info.max
    return value if is_least and is_most else None


def _choice(value: object, kind: type[enum.Enum]) -> enum.Enum | None:
    """Only as it is written."""
    return next((one for one in kind if value is one or value == str(one.value)), None)


def _file(value: object, info: Constraints) -> Path | None:
    """One that is there and can be read, or needn't be there."""
    if not isinstance(value, str | Path):
        return None
    if info.resolve_path or info.allow_dash or info.writable or info.path_type is not None:
        return None
    found = Path(value)
    if not found.exists():
        return None if info.exists or found.is_symlink() else found
    is_okay = info.file_okay if found.is_file() else info.dir_okay and found.is_dir()
    return found if is_okay and os.access(found, os.R_OK) else None


def make_plain(command: object) -> None:
    """Of a command, and of those in it."""
    for parameter in getattr(command, "params", ()):
        _make_plain(parameter)
    usual = getattr(command, "get_help_option", None)
    if usual is not None:  # made when it is asked for

        def get_help_option(context: object) -> object:
            option = usual(context)
            _make_plain(option)
            return option

        command.get_help_option = get_help_option  # type: ignore[attr-defined]  # as it had one
    for inner in getattr(command, "commands", {}).values():
        make_plain(inner)


def _make_plain(parameter: object) -> None:
    if hasattr(parameter, "get_runtime_param") and hasattr(parameter, "type_descriptor"):
        able = cast("Parameter", parameter)
        if not isinstance(able.get_runtime_param, Plain):
            able.get_runtime_param = Plain(able)
