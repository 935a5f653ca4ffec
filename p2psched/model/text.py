"""Text as it travels and is kept: UTF-8. Words of a command line and names of files may be none."""

from __future__ import annotations


def utf8_bytes(text: object) -> int:
    """How many bytes it has as UTF-8; 0 if it is no text, or has lone surrogates."""
    try:
        return len(text.encode()) if isinstance(text, str) else 0
    except UnicodeEncodeError:
        return 0
