"""Syntax trees of our own files: each is made once, however many rules look at it."""

from __future__ import annotations

import ast
from functools import cache


@cache
def parsed(source: str) -> ast.Module:
    """To be looked at only: others look at the same."""
    return ast.parse(source)
