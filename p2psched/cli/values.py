"""Labels and sizes of memory on the command line."""

from __future__ import annotations

from p2psched.cli.options import byte_count
from p2psched.model.errors import UsageError
from p2psched.model.limits import MIB
from p2psched.model.needs import Labels, parse_labels


def labels_of(texts: list[str] | None, option: str) -> Labels:
    try:
        return parse_labels(texts or ())
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def memory_mib(text: str, option: str) -> int:
    """Whole MiB, rounded up."""
    return -(-byte_count(text, option) // MIB)
