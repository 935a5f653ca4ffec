"""What Tab offers: ids of jobs, names and addresses of peers, keys. In a second or not at all, and
silent whatever is wrong: a prompt is no place for errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import short
from p2psched.store.records import Record, default_runtime_dir, list_records

if TYPE_CHECKING:
    from p2psched.client.client import Client

PATIENCE_S: Final = 1.0
JOBS_MAX: Final = 50
KEYS_MAX: Final = 100


def complete_jobs(incomplete: str) -> Iterator[tuple[str, str]]:
    """Ids of the newest jobs, with their names."""
    import asyncio  # noqa: PLC0415 (`start` does without)

    try:
        found = asyncio.run(_jobs())
    except (P2PSchedError, OSError, TimeoutError):
        return
    for identity, name in [*found, ("last", "the newest")]:
        if identity.startswith(incomplete):
            yield identity, name


def complete_locks(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of locks that are held."""
    import asyncio  # noqa: PLC0415

    try:
        found = asyncio.run(_locks(incomplete))
    except (P2PSchedError, OSError, TimeoutError):
        return
    yield from found


async def _locks(prefix: str) -> list[tuple[str, str]]:
    import asyncio  # noqa: PLC0415

    async with asyncio.timeout(PATIENCE_S), _client() as client:
        views = await client.locks(prefix, limit=JOBS_MAX)
    return [(view.name, ", ".join(holder.label for holder in view.holders)) for view in views]


def complete_limits(incomplete: str) -> Iterator[str]:
    """`NAME=`, and a size or number that is often used."""
    usual = ("mem=2G", "mem=need", "procs=64", "files=256", "cpu=30s", "fsize=1G", "core=0")
    yield from (text for text in usual if text.startswith(incomplete))


def complete_rules(incomplete: str) -> Iterator[str]:
    """`CAUSE=N[,OPTION...]`, word by word."""
    from p2psched.client.retries import ANY, OPTIONS  # noqa: PLC0415
    from p2psched.model.retry import RULED  # noqa: PLC0415

    cause, equals, _ = incomplete.partition("=")
    if not equals:
        yield from (f"{name}=2" for name in (*RULED, ANY) if name.startswith(cause))
        return
    before, comma, last = incomplete.rpartition(",")
    if comma:
        yield from (f"{before},{option}" for option in OPTIONS if option.startswith(last))
    else:
        yield from (f"{incomplete},{option}" for option in OPTIONS)


def complete_addresses(incomplete: str) -> Iterator[tuple[str, str]]:
    for record in _local_peers():
        if record.address.startswith(incomplete):
            yield record.address, record.name


def complete_peers(incomplete: str) -> Iterator[tuple[str, str]]:
    for record in _local_peers():
        if record.name.startswith(incomplete):
            yield record.name, record.address


def complete_members(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of the peers of the cluster."""
    import asyncio  # noqa: PLC0415

    try:
        found = asyncio.run(_members())
    except (P2PSchedError, OSError, TimeoutError):
        return
    for name, what in found:
        if name.startswith(incomplete):
            yield name, what


def complete_keys(incomplete: str) -> Iterator[str]:
    """Keys of the ledger that begin so."""
    import asyncio  # noqa: PLC0415

    try:
        yield from asyncio.run(_keys(incomplete))
    except (P2PSchedError, OSError, TimeoutError):
        return


async def _keys(prefix: str) -> list[str]:
    import asyncio  # noqa: PLC0415

    async with asyncio.timeout(PATIENCE_S), _client() as client:
        return [entry.key for entry in await client.kv.range(prefix, limit=KEYS_MAX)]


async def _members() -> list[tuple[str, str]]:
    import asyncio  # noqa: PLC0415

    async with asyncio.timeout(PATIENCE_S), _client() as client:
        views = await client.peers()
    return [(view.info.name, f"{view.role}, {view.state}") for view in views]


def complete_policies(incomplete: str) -> Iterator[tuple[str, str]]:
    """Those that come with p2psched."""
    from p2psched.core.policies.registry import POLICIES  # noqa: PLC0415

    for policy in POLICIES.values():
        if policy.name.startswith(incomplete):
            yield policy.name, policy.summary


def complete_queues(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of queues, with what is in them."""
    import asyncio  # noqa: PLC0415

    try:
        found = asyncio.run(_queues())
    except (P2PSchedError, OSError, TimeoutError):
        return
    for name, what in found:
        if name.startswith(incomplete):
            yield name, what


async def _queues() -> list[tuple[str, str]]:
    import asyncio  # noqa: PLC0415

    async with asyncio.timeout(PATIENCE_S), _client() as client:
        return [(view.name, f"{view.items} items") for view in await client.queues()]


def _client() -> Client:
    from p2psched.client.client import Client  # noqa: PLC0415

    return Client(
        os.environ.get("P2PSCHED_PEER"),
        secret_file=os.environ.get("P2PSCHED_SECRET_FILE"),
        runtime_dir=_runtime_dir(),
        patience_s=PATIENCE_S,
    )


async def _jobs() -> list[tuple[str, str]]:
    import asyncio  # noqa: PLC0415

    async with asyncio.timeout(PATIENCE_S), _client() as client:
        views = await client.jobs(limit=JOBS_MAX)
    return [(short(view.job), f"{view.name} ({view.state})") for view in views]


def _local_peers() -> list[Record]:
    try:
        return [record for record in list_records(_runtime_dir()) if record.alive]
    except (P2PSchedError, OSError):
        return []


def _runtime_dir() -> Path:
    given = os.environ.get("P2PSCHED_RUNTIME_DIR")
    return Path(given) if given else default_runtime_dir(os.environ)
