"""How datagrams between members are encrypted: as raftos does, and never less."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

import raftos.conf
import raftos.cryptors

from p2psched.model.errors import Refused

SALT: Final = b"p2psched raftos"  # the secret is random, and no password


def cryptor_of(secret: bytes) -> raftos.cryptors.BaseCryptor:
    """Raises Refused for the secret that comes with raftos, and if nothing could be encrypted."""
    defaults = raftos.conf.Configuration.default_settings()
    if secret == defaults["secret_key"]:
        raise Refused("this secret is the one that raftos comes with: everybody knows it")
    if not raftos.cryptors.crypto_enabled:
        raise Refused("raftos would not encrypt: the package cryptography is missing")
    return raftos.cryptors.Cryptor(SimpleNamespace(secret_key=secret, salt=SALT))
