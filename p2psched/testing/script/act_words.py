"""How scripts write what clients do to leases, keys, locks and queues."""

from __future__ import annotations

import re

from p2psched.model.actions import Act, Acted, Action, ActionAnswer, Elapsed
from p2psched.model.aside import Aside


def act_words(act: Act | Elapsed) -> str:
    if isinstance(act, Elapsed):
        return f"elapsed {act.upto_ms}"
    number = f"{act.caller}/{act.number}: " if act.caller else ""
    return number + struct_words(act.action)


def acted_words(acted: Acted) -> str:
    return struct_words(acted.answer)


def struct_words(struct: Action | ActionAnswer | Aside) -> str:
    """`PutKey(key="a", value=b"1")` is `put key a 1`."""
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(struct).__name__).lower()
    fields = (getattr(struct, field) for field in struct.__struct_fields__)
    return " ".join([name, *(_word(field) for field in fields if field not in ("", None, ()))])


def _word(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, tuple):
        return ",".join(map(_word, value))
    return str(value)
