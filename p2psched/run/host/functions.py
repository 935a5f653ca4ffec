"""Calling users' functions and turning how that ended into a cause and an item.

Here, and only here, users' pickles are opened. Every failure of user code is an outcome, whatever
it raises; texts are bounded, so an item stays far below what fits one message.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final

from ...model import items, limits, values  # noqa: TID252 - see shared.py
from . import frames, large, pickling
from .exchange import Exchange

EXCEPTION_BYTES_MAX: Final = 16 * limits.KIB
TRACEBACK_LEN_MAX: Final = 16 * limits.KIB
MESSAGE_LEN_MAX: Final = 2 * limits.KIB

Function = Callable[..., object]
Outcome = tuple[int, items.Header, bytes]  # cause, header, value


class NotStartable(Exception):
    """The function or its arguments can't be opened here; the text says what to do."""

    cause = frames.NOT_STARTABLE


class NoSpace(NotStartable):
    """Not here now, because this peer's disk is full."""

    cause = frames.NO_SPACE


def load_path(path: str) -> Function:
    """The function behind `module:qualified.name`."""
    module_name, _, qualified = path.partition(":")
    try:
        importlib.invalidate_caches()
        found: object = importlib.import_module(module_name)
    except BaseException as error:
        raise NotStartable(
            f"module {module_name!r} can't be imported by {sys.executable} ({describe(error)}): "
            f"install it there, or send the function by value"
        ) from error
    try:
        for name in qualified.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise NotStartable(
            f"module {module_name!r} has no {qualified!r} on this peer: is it the same version?"
        ) from error
    if not callable(found):
        raise NotStartable(f"{path!r} is no function but {type(found).__name__}")
    return found


def load_code(code: bytes, python: str) -> Function:
    """A function that came by value."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != own:
        raise NotStartable(
            f"the function travels by value from Python {python}, and {sys.executable} is {own}: "
            f"use the same minor version on both, or an importable function"
        )
    try:
        importlib.import_module("cloudpickle")
    except ImportError as error:
        raise NotStartable(
            f"the function travels by value and {sys.executable} has no cloudpickle: "
            f"run `{sys.executable} -m pip install cloudpickle`, or use an importable function"
        ) from error
    try:
        function = pickle.loads(code)  # noqa: S301, TID251 - this is a worker
    except BaseException as error:
        raise NotStartable(
            f"the function can't be opened by {sys.executable} ({describe(error)}): "
            f"what it needs must be installed there"
        ) from error
    if not callable(function):
        raise NotStartable(f"what came as the function is {type(function).__name__}")
    checked: Function = function
    return checked


def call(function: Function, arguments: bytes, exchange: Exchange) -> Outcome:
    """Run one task. Raises Damaged, before it has begun, and nothing else."""
    try:
        if arguments[0] == values.MARK:
            args, kwargs = exchange.open(arguments)
        else:
            args, kwargs = pickle.loads(arguments)  # noqa: S301, TID251 - this is a worker
    except large.Damaged:
        raise  # nothing of the task has run: it may start over with a sound copy
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the task's outcome
        text = f"the arguments can't be opened by {sys.executable} ({describe(error)})"
        return frames.NOT_STARTABLE, {"message": text}, b""
    try:
        value = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit too is only this task's end
        return failure(error)
    del args, kwargs  # a large argument needs not lie beside a large result
    try:
        data = exchange.pack(value)
    except large.NoSpace as error:
        return frames.NO_SPACE, {"message": f"the result was made, and {error}"}, b""
    except large.TooLarge as error:
        return frames.TOO_LARGE, {"message": f"the result is too large: {error}"}, b""
    except BaseException as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
        text = f"the value of type {type(value).__qualname__} can't be pickled ({describe(error)})"
        return frames.NOT_SERIALISABLE, {"message": text}, b""
    return frames.OK, {}, data


def failure(error: BaseException) -> Outcome:
    """The outcome of a task that raised."""
    header: items.Header = {
        "type": type(error).__qualname__[:MESSAGE_LEN_MAX],
        "message": _message(error),
        "traceback": _traceback(error),
    }
    value = b""
    try:
        data = pickling.dumps(error.with_traceback(None))
        if len(data) <= EXCEPTION_BYTES_MAX and pickle.loads(data) is not None:  # noqa: S301, TID251
            value = data
    except BaseException:  # noqa: BLE001, S110 - then type, message and traceback must do
        pass
    return frames.EXCEPTION, header, value


def _message(error: BaseException) -> str:
    try:
        return str(error)[:MESSAGE_LEN_MAX]
    except BaseException:  # noqa: BLE001 - a user's __str__ may raise anything
        return "(the exception has no readable text)"


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {_message(error)}"


def _traceback(error: BaseException) -> str:
    """As Python prints it, without our own frames; the middle goes if it is long."""
    error.__traceback__ = _below(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - formatting runs the user's __str__ and __repr__
        return ""
    if len(text) > TRACEBACK_LEN_MAX:
        half = TRACEBACK_LEN_MAX // 2
        text = (
            f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
        )
    return text


def _below(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of this file."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
