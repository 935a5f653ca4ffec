"""What `status` says of callers that were told `busy`."""

from __future__ import annotations

from p2psched.model.status_messages import DoorStatus


def door_row(found: DoorStatus | None) -> list[tuple[str, object]]:
    """Nothing of a peer that takes no calls for the ledger."""
    if found is None:
        return []
    line = f"{found.waiting:,} of {found.line:,} wait for the ledger, {found.wait_ms} ms lately"
    why = []
    if found.refused_jobs:
        why.append(f"{found.refused_jobs:,} as too many jobs run")
    if found.refused_bytes:
        why.append(f"{found.refused_bytes:,} for their bytes")
    of_these = f" ({', '.join(why)})" if why else ""
    return [("callers", f"{line}; {found.refused:,} told busy{of_these}")]
