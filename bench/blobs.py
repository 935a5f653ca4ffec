"""Tasks that need p2psched's own types in the worker."""

from __future__ import annotations


def give_back(file: object) -> object:
    """The file that came is the file that goes."""
    return file
