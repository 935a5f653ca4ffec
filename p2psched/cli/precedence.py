"""What `job show` says of how a job stands to others."""

from __future__ import annotations

from p2psched.model.precedence import PrecedenceView


def precedence_text(view: PrecedenceView) -> str | None:
    """Nothing if it is as usual."""
    if not (view.priority or view.preemptible):
        return None
    way = f", preemptible after {view.runs_ms / 1000:g} s" if view.preemptible else ""
    return f"{view.priority}{way}"


def preempted_text(view: PrecedenceView) -> str | None:
    return f"{view.preempted:,} (for jobs with a higher priority)" if view.preempted else None


def precedence_fields(view: PrecedenceView) -> dict[str, object]:
    return {
        "priority": view.priority,
        "preemptible": view.preemptible,
        "preempt_after_s": view.runs_ms / 1000 if view.preemptible else None,
        "preempted": view.preempted,
    }
