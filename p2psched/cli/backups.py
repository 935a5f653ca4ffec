"""What `job show` says of tasks that run on several peers."""

from __future__ import annotations

from collections.abc import Mapping

from p2psched.model.backing import BackupView
from p2psched.model.ids import PeerId, short


def replicas_text(view: BackupView) -> str | None:
    """Nothing if the job asks for none."""
    if view.replicas == 1:
        return None
    return f"{view.replicas} of each task{f'; {view.short}' if view.short else ''}"


def backups_text(view: BackupView, names: Mapping[PeerId, str]) -> str | None:
    if not (view.tasks or view.won or view.late or view.speculates):
        return None
    at = ", ".join(f"{names.get(peer, short(peer))} {number:,}" for peer, number in view.at)
    run = f"{view.tasks:,} run ({at})" if view.tasks else "none runs"
    late = f", {view.late:,} because they were late" if view.late else ""
    return f"{run}{late}; {view.won:,} ended first"


def backup_fields(view: BackupView) -> dict[str, object]:
    return {
        "replicas": view.replicas,
        "speculate": view.speculates,
        "backups": view.tasks,
        "backups_at": dict(view.at),
        "backups_late": view.late,
        "backups_won": view.won,
        "replicas_short": view.short or None,
    }
