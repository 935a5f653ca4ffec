"""What a script can do wrong."""

from __future__ import annotations


class ScriptError(Exception):
    """The script asks for what can't be done: it is wrong, not what it tests."""
