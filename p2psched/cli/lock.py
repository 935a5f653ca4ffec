"""`p2psched lock acquire`, `list`, `release`: locks by hand, and who holds which."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_locks
from p2psched.cli.connect import label, talk
from p2psched.cli.options import Target, duration, reads_from_peers, talks_to_peers
from p2psched.cli.output import Column, Output, count, note, print_json, print_table, write_line
from p2psched.client.client import Client
from p2psched.client.locks import Lock
from p2psched.model.errors import NotFound, UsageError
from p2psched.model.lock_messages import ClaimView, LockView

ACQUIRE_EXAMPLES: Final = """\b
Examples:
  p2psched lock acquire prod-db --ttl 30s
  p2psched lock acquire prod-db -o quiet  # token, claim
  p2psched lock acquire license:3 --no-wait || echo taken
  p2psched lock acquire config --shared --timeout 10s

Nobody renews it once this command has ended: it is free
again when its time is over. `lock run` holds a lock as
long as a command runs.
"""
LIST_EXAMPLES: Final = """\b
Examples:
  p2psched lock list
  p2psched lock list prod- -o json
"""
RELEASE_EXAMPLES: Final = """\b
Examples:
  p2psched lock release prod-db $claim
  p2psched lock release prod-db --token 42

If it is another's, its holder doesn't hear of it before
it comes to a guard with its token.
"""
LOCKS_SHOWN_MAX: Final = 10_000
_COLUMNS: Final = (
    Column(title="lock", shrink_to=16),
    Column(title="held", right=True),
    Column(title="token", right=True),
    Column(title="by", shrink_to=12),
    Column(title="waiting", right=True),
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete_locks,
        help="Any name. license:3 may be held by three at a time, if all say so.",
    ),
]
TtlOption = Annotated[
    str, typer.Option("--ttl", metavar="DURATION", help="How long it is held without a word.")
]
SharedOption = Annotated[
    bool, typer.Option("--shared", help="Together with others that share it, as readers do.")
]
CapacityOption = Annotated[
    int | None,
    typer.Option("--capacity", metavar="COUNT", min=1, help="Instead of :COUNT behind the name."),
]
PermitsOption = Annotated[
    int, typer.Option("--permits", metavar="COUNT", min=1, help="So many of the capacity.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for one's turn, or exit 4 at once.")
]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", metavar="DURATION", help="Stop waiting then, exit 4.")
]


def lock_of(
    client: Client,
    name: str,
    *,
    ttl: str,
    shared: bool,
    capacity: int | None,
    permits: int,
    wait: bool,
    timeout: str | None,
    owner: str = "",
    cancel: bool = False,
) -> Lock:
    return client.lock(
        name,
        ttl=duration(ttl, "--ttl"),
        shared=shared,
        capacity=capacity,
        permits=permits,
        wait=wait,
        timeout=None if timeout is None else duration(timeout, "--timeout"),
        owner=owner,
        cancel=cancel,
    )


@talks_to_peers
def acquire(
    target: Target,
    name: NameArgument,
    *,
    ttl: TtlOption = "30s",
    shared: SharedOption = False,
    capacity: CapacityOption = None,
    permits: PermitsOption = 1,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
) -> None:
    """Take a lock for a while, and say its token and claim."""

    async def work(client: Client) -> tuple[int, str]:
        lock = lock_of(
            client,
            name,
            ttl=ttl,
            shared=shared,
            capacity=capacity,
            permits=permits,
            wait=wait,
            timeout=timeout,
        )
        token = await lock.acquire()
        claim = lock.claim
        await lock.leave()
        return token, claim

    token, claim = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(lock=name, token=token, claim=claim, ttl_s=duration(ttl, "--ttl"))
        case Output.QUIET:
            write_line(f"{token} {claim}")
        case Output.TABLE:
            write_line(f"lock {name} is held for {ttl}, token {token}, claim {claim}")


@talks_to_peers
def release(
    target: Target,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", autocompletion=complete_locks, help="Without :COUNT."),
    ],
    claim: Annotated[
        str | None, typer.Argument(metavar="[CLAIM]", help="As acquire said it.")
    ] = None,
    *,
    token: Annotated[
        int | None, typer.Option("--token", metavar="TOKEN", min=1, help="Instead of the claim.")
    ] = None,
) -> None:
    """Let go of a lock before its time is over: the next who waits has it then."""
    if (claim is None) == (token is None):
        raise UsageError("say which: its claim, or --token")

    async def work(client: Client) -> bool:
        return await client.release_lock(name, claim=claim or "", token=token or 0)

    if not talk(target, work):
        raise NotFound(
            f"lock {name} is not held like that: it was released before, or its time was over"
        )
    match target.output:
        case Output.JSON:
            print_json(released=name)
        case Output.QUIET | Output.TABLE:
            write_line(name if target.output is Output.QUIET else f"released lock {name}")


@reads_from_peers
def list_locks(
    target: Target,
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="Only locks whose names begin so.")
    ] = "",
) -> None:
    """List the locks that are held: by whom, under which token, and how many wait."""

    async def work(client: Client) -> tuple[list[LockView], dict[str, object]]:
        return await client.locks(prefix, limit=LOCKS_SHOWN_MAX), label(client)

    found, how_old = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(locks=[_fields(view) for view in found], **how_old)
        case Output.QUIET:
            for view in found:
                write_line(view.name)
        case Output.TABLE if not found:
            note("no locks are held")
        case Output.TABLE:
            print_table(_COLUMNS, [row for view in found for row in _rows(view)])


def _rows(view: LockView) -> list[tuple[object, ...]]:
    """One for each holder that is told."""
    name = view.name if view.capacity == 1 else f"{view.name}:{view.capacity}"
    rows: list[tuple[object, ...]] = []
    for holder in view.holders:
        how = " (shared)" if holder.shared else ""
        more = f" ({count(holder.permits, 'permit')})" if holder.permits > 1 else ""
        first = not rows
        rows.append(
            (
                name if first else "",
                view.held_count if first else "",
                holder.token,
                (holder.label or "-") + how + more,
                view.waiting_count if first else "",
            )
        )
    if view.held_count > len(view.holders):
        rows.append(("", "", "", f"and {view.held_count - len(view.holders)} more", ""))
    return rows


def _fields(view: LockView) -> dict[str, object]:
    return {
        "name": view.name,
        "capacity": view.capacity,
        "held": view.held_count,
        "holders": [_claim_fields(holder) for holder in view.holders],
        "waiting": view.waiting_count,
        "waiters": [_claim_fields(waiter) for waiter in view.waiters],
    }


def _claim_fields(claim: ClaimView) -> dict[str, object]:
    return {
        "claim": claim.claim,
        "by": claim.label,
        "token": claim.token or None,
        "shared": claim.shared,
        "permits": claim.permits,
    }
