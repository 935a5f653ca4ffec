"""Where other peers were last, for the next start: advice only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model import ids
from p2psched.model.ids import PeerId
from p2psched.store.files import read_file, replace_file

ADDRESSES_MAX: Final = 1024  # further ones are left out of the address book
_ADDRESS_BOOK_BYTES_MAX: Final = 1024 * 1024


class AddressBook:
    """Names and addresses of other peers. Advice only: a damaged or missing one is an empty one,
    and one that can't be written is a warning in the log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[PeerId, tuple[str, str]]:
        """Peer -> (name, address); what is no valid entry is left out."""
        try:
            data, _ = read_file(self._path, _ADDRESS_BOOK_BYTES_MAX)
            kept = msgspec.json.decode(data, type=dict[str, tuple[str, str]])
        except (OSError, ValueError):
            return {}
        return {PeerId(peer): entry for peer, entry in kept.items() if ids.is_id(peer)}

    def save(self, entries: Mapping[PeerId, tuple[str, str]]) -> None:
        """Replace the book by `entries`, the first ADDRESSES_MAX of them by peer id."""
        data = msgspec.json.encode(dict(sorted(entries.items())[:ADDRESSES_MAX]))
        try:
            replace_file(self._path, data, durable=False)
        except OSError as fault:
            logging.getLogger(__name__).warning(
                "address-book-not-saved", extra={"file": str(self._path), "reason": str(fault)}
            )
