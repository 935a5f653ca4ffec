"""Identities. An identity is random and kept on disk; it is never an address.

Everything here is a string of lower-case hex digits, so that ids can be printed and typed.
"""

from __future__ import annotations

import random
import re
from typing import Final, NewType

PeerId = NewType("PeerId", str)
JobId = NewType("JobId", str)
ClusterId = NewType("ClusterId", str)

ID_BITS: Final = 128
SHORT_LEN: Final = 8
_HEX: Final = re.compile(r"[0-9a-f]{32}")


def new_id(rng: random.Random) -> str:
    """128 random bits as 32 hex digits. Pass `random.SystemRandom()` outside tests."""
    return f"{rng.getrandbits(ID_BITS):032x}"


def is_id(text: str) -> bool:
    """True if `text` is a whole id, not a prefix of one."""
    return _HEX.fullmatch(text) is not None


def short(identity: str) -> str:
    """The form people read and type: the first eight digits."""
    return identity[:SHORT_LEN]
