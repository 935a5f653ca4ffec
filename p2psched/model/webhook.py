"""An address that is told of events: as the ledger holds it, and the commands about it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from p2psched.model.event_messages import EventFilter, Place

WEBHOOKS_MAX: Final = 32
URL_LEN_MAX: Final = 2_048
KINDS_MAX: Final = 64
_PORT_MAX: Final = 65_535
_URL: Final = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?([/?][!-~]*)?"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class Webhook(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: str
    url: str
    wanted: EventFilter
    added: int  # index of the command
    acked: Place  # all that fits before it has arrived


class AddWebhook(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=45):
    """Tell an address of events that fit, from `start` on, or from the next entry on."""

    name: str
    url: str
    wanted: EventFilter = EventFilter()
    start: Place | None = None


class RemoveWebhook(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=46):
    name: str


class AckWebhook(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=47):
    """All that fits before `upto` has reached the address. `added`: the command that added the
    webhook: a later one of that name is not meant."""

    name: str
    added: int
    upto: Place


WebhookCommand = AddWebhook | RemoveWebhook | AckWebhook


def fault_of(name: str, url: str, wanted: EventFilter) -> str:
    """Why such a webhook can't be; empty if it can."""
    if not _NAME.fullmatch(name):
        return "a webhook's name has 1 to 64 of letters, digits, '.', '_' and '-'"
    if len(url) > URL_LEN_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"a webhook's URL has up to {URL_LEN_MAX:,} ASCII characters, and no blanks"
    found = _URL.fullmatch(url)
    if found is None or not 0 < int(found["port"] or 1) <= _PORT_MAX:
        return (
            "a webhook's URL is like http://HOST:PORT/PATH or https://HOST/PATH, without user and "
            f"password, for it is shown to whoever lists webhooks; not {url[:80]}"
        )
    if len(wanted.kinds) > KINDS_MAX:
        return f"a webhook names up to {KINDS_MAX} kinds of events"
    return ""
