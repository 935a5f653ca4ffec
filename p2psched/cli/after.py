"""`submit-job --after`: the jobs that a job comes after, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import typer

from p2psched.cli.complete import complete_jobs
from p2psched.client.after import ABORT, CONTINUE, after_of
from p2psched.client.client import Client
from p2psched.model.after import AfterView, ParentView
from p2psched.model.errors import UsageError
from p2psched.model.ids import is_id, short
from p2psched.model.job import JobSpec

_After = Annotated[
    list[str] | None,
    typer.Option(
        "--after",
        metavar="JOB",
        autocompletion=complete_jobs,
        help="Begin once this job has succeeded: an id, a name, or 'last'. Repeatable. See "
        "docs/dependencies.md.",
    ),
]
_OnParentFail = Annotated[
    str | None,
    typer.Option(
        "--on-parent-fail",
        metavar=f"{ABORT}|{CONTINUE}",
        autocompletion=lambda: [ABORT, CONTINUE],
        help="What follows if a job of --after does not succeed: never begin, or begin all the "
        "same. Default: abort.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The options of it."""

    after: _After = None
    on_parent_fail: _OnParentFail = None

    def check(self) -> None:
        """Before anything is sent. Raises UsageError."""
        if self.on_parent_fail is not None and not self.after:
            raise UsageError("--on-parent-fail is for --after")
        if self.on_parent_fail not in (None, ABORT, CONTINUE):
            raise UsageError(
                f"--on-parent-fail is {ABORT} or {CONTINUE}, not {self.on_parent_fail!r}"
            )

    async def told(self, client: Client, spec: JobSpec) -> JobSpec:
        """With the ids of the jobs that it comes after."""
        if not self.after:
            return spec
        # Whole ids are the ledger's to judge: also where nobody can be asked (`--spool`).
        jobs = [name if is_id(name) else (await client.job(name)).id for name in self.after]
        return msgspec.structs.replace(spec, after=after_of(jobs, self.on_parent_fail or ABORT))


def parent_text(parent: ParentView) -> str:
    named = f"{short(parent.job)} ({parent.name})" if parent.name else short(parent.job)
    return f"{named}: {parent.state}"


def after_text(view: AfterView) -> str | None:
    """Nothing if it comes after no other."""
    if not view.parents:
        return None
    how = "; begins however they end" if view.goes_on else ""
    return ", ".join(map(parent_text, view.parents)) + how


def aborted_for_text(view: AfterView) -> str | None:
    """Whose fault that was."""
    found = view.ancestor
    return parent_text(ParentView(found.job, found.name, found.state)) if found else None


def waits_text(view: AfterView) -> str | None:
    """In place of its state, in a list; nothing if it waits for no other job."""
    if view.first is None:
        return None
    more = f" +{view.open - 1}" if view.open > 1 else ""
    return f"waits for {short(view.first.job)}{more}"


def after_fields(view: AfterView) -> dict[str, object]:
    """`after` is whole in what is said of one job."""
    ancestor = view.ancestor
    return {
        "after": [msgspec.structs.asdict(parent) for parent in view.parents],
        "waits_for": view.open,
        "on_parent_fail": (CONTINUE if view.goes_on else ABORT),
        "aborted_for": msgspec.structs.asdict(ancestor) if ancestor is not None else None,
    }
