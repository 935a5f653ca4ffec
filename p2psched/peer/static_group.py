"""What the static group of a raftos ledger means for the start of a peer.

A peer stays with the engine of its first start: a file in its data folder says who is in the group
if it isn't the embedded one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model.config import Config
from p2psched.model.errors import Damaged, Refused, UsageError
from p2psched.model.ids import ClusterId
from p2psched.net.address import parse
from p2psched.store.files import refusing, replace_file
from p2psched.store.folder import DataFolder

GROUP_MAX: Final = 7
RAFTOS_VERSION: Final = "0.2.6"
GROUP_FILE: Final = "raftos.json"


def check_group(config: Config) -> None:
    """Before anything is touched. Raises UsageError, or Refused if raftos is not there."""
    if config.ledger != "raftos":
        if config.group:
            raise UsageError("--group is for --ledger raftos: others join with --join")
        return
    if config.join:
        raise UsageError("a raftos ledger has a static group: name all with --group, not --join")
    if config.votes is False:
        raise UsageError("all peers of a raftos ledger vote: leave out --no-vote")
    check_installed()
    for address in config.group:
        try:
            ipaddress.IPv4Address(parse(address).host)
        except ValueError as error:
            raise UsageError(
                f"--group needs numeric addresses, as 192.0.2.1:7420, not {address}"
            ) from error
    if config.group and not len(set(config.group)) == len(config.group) <= GROUP_MAX:
        raise UsageError(f"--group names up to {GROUP_MAX} peers, each once")
    if config.group and config.listen not in config.group:
        raise UsageError(f"--listen {config.listen} is not among --group {' '.join(config.group)}")


def check_installed() -> None:
    from importlib import metadata  # noqa: PLC0415 (a megabyte that most peers never need)

    try:
        found = metadata.version("raftos")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != RAFTOS_VERSION:
        raise Refused(
            f"--ledger raftos needs raftos {RAFTOS_VERSION}, and {found} is installed: run "
            f"`pip install --no-deps raftos=={RAFTOS_VERSION}` and `pip install cryptography`"
        )


def is_static(folder: DataFolder) -> bool:
    return (folder.path / GROUP_FILE).exists()


def group_of(config: Config, folder: DataFolder) -> tuple[str, ...]:
    """The static group of this peer, durable from now on; empty for the embedded engine. Raises
    Refused if the folder says something else than `config`, UsageError if nobody says it."""
    path = folder.path / GROUP_FILE
    if path.exists():
        group = _read_group(path)
        if config.ledger == "raft" or config.join:
            raise Refused(
                f"data folder {folder.path} keeps a ledger of raftos, of a static group: choose "
                "another --data for the embedded engine"
            )
        if config.group and sorted(config.group) != list(group):
            raise Refused(
                f"the group of a raftos ledger is static, and that of {folder.path} is "
                f"{' '.join(group)}"
            )
        if config.listen not in group:
            raise UsageError(f"--listen has to be one of {' '.join(group)}")
        check_installed()
        return group
    if config.ledger != "raftos":
        return ()
    if folder.identity.cluster is not None:
        raise Refused(
            f"data folder {folder.path} keeps a ledger of the embedded engine: choose another "
            "--data for one of raftos"
        )
    if not config.group:
        raise UsageError("a raftos ledger needs --group, once for each of its peers, itself too")
    group = tuple(sorted(config.group))
    with refusing(f"write {path}"):
        replace_file(path, msgspec.json.encode(group), durable=True)
    return group


def _read_group(path: Path) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[str, ...])
    except (OSError, ValueError) as fault:
        raise Damaged(
            f"{path} can't be read ({fault}): put it back as another peer has it"
        ) from fault


def cluster_of(group: Sequence[str]) -> ClusterId:
    """The same for all who were started with this group."""
    return ClusterId(hashlib.sha256(" ".join(sorted(group)).encode()).hexdigest()[:32])
