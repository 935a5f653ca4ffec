"""Transactions and values of keys as JSON. Bytes are `{"base64": "..."}`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Final

from p2psched.client import keys
from p2psched.client.keys import Entry
from p2psched.model.errors import UsageError
from p2psched.model.key_actions import Compare, Op

_NOTHING: Final = object()
Transaction = tuple[list[Compare], list[Op], list[Op]]


def parsed(text: bytes) -> Transaction:
    """Raises UsageError."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"a transaction is JSON: {error}") from error
    if not isinstance(found, dict) or not set(found) <= {"compare", "then", "otherwise"}:
        raise UsageError('a transaction is an object with "compare", "then" and "otherwise"')
    return (
        [_compare(one) for one in _list(found, "compare")],
        [_op(one) for one in _list(found, "then")],
        [_op(one) for one in _list(found, "otherwise")],
    )


def _list(found: dict[str, object], name: str) -> list[object]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise UsageError(f'"{name}" of a transaction is a list')
    return value


def _compare(one: object) -> Compare:
    if isinstance(one, dict) and isinstance(one.get("key"), str):
        version, value = one.get("version"), one.get("value", _NOTHING)
        if set(one) == {"key", "version"} and isinstance(version, int):
            return keys.version_is(one["key"], version)
        if set(one) == {"key", "value"}:
            return keys.value_is(one["key"], made(value))
    if isinstance(one, dict) and set(one) == {"lock", "token"}:
        lock, token = one["lock"], one["token"]
        if isinstance(lock, str) and isinstance(token, int):
            return keys.holds(lock, token)
    raise UsageError(
        f'{_short(one)} is no comparison: {{"key": ..., "version": ...}} (0: it is not there), '
        '{"key": ..., "value": ...}, or {"lock": ..., "token": ...}'
    )


def _op(one: object) -> Op:
    if isinstance(one, dict):
        names = set(one)
        if names == {"put", "value"} and isinstance(one["put"], str):
            return keys.put(one["put"], made(one["value"]))
        simple: dict[str, Callable[[str], Op]] = {"delete": keys.delete, "get": keys.get}
        for name, make in simple.items():
            if names == {name} and isinstance(one[name], str):
                return make(one[name])
    raise UsageError(
        f'{_short(one)} is no operation: {{"put": KEY, "value": ...}}, {{"delete": KEY}} or '
        '{"get": KEY}'
    )


def _short(one: object) -> str:
    return json.dumps(one)[:80]


def result_fields(result: int | bool | Entry | None) -> object:
    return entry_fields(result) if isinstance(result, Entry) else result


def entry_fields(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "value": plain(entry.value),
        "version": entry.version,
        "created": entry.created,
        "lease": entry.lease,
    }


def plain(value: object) -> object:
    """As JSON has it."""
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case list():
            return [plain(one) for one in value]
        case dict():
            return {_name(key): plain(one) for key, one in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case _:  # a time, or an extension
            return str(value)


def _name(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(plain(key))


def made(value: object) -> object:
    """What `plain` stands for."""
    match value:
        case {"base64": str() as text, **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError as error:
                raise UsageError(f"{_short(value)} is no base64") from error
        case list():
            return [made(one) for one in value]
        case dict():
            return {key: made(one) for key, one in value.items()}
        case _:
            return value


def text_of(value: object) -> str:
    """For people, in one line."""
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
