"""Events that are of no job: they are in no history but the ledger itself."""

from __future__ import annotations

import msgspec


class Aside(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of what happens to leases, and to what hangs on them, and of what peers report."""
