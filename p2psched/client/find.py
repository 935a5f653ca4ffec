"""Where a client connects, and with which secret."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.net.address import parse
from p2psched.store.folder import read_secret_file
from p2psched.store.records import Record, list_records


def find_peers(
    address: str | None, *, secret_file: Path | None, runtime_dir: Path
) -> tuple[list[str], bytes]:
    """Where to connect and with which secret: a given address, or the local peers' records.

    Blocks on the disk. Raises Unavailable if no peer is known, Refused if no secret is, UsageError
    if it can't be told which cluster is meant.
    """
    records = list_records(runtime_dir)
    if address is None:
        alive = [record for record in records if record.alive]
        if not alive:
            raise Unavailable(
                "no peer runs on this machine: start one with `p2psched start`, or name one "
                "elsewhere with --peer HOST:PORT and --secret-file FILE"
            )
        chosen = alive[0]
        same = [record.address for record in alive if record.cluster == chosen.cluster]
        if len(same) < len(alive):
            named = ", ".join(f"{record.name} at {record.address}" for record in alive[:6])
            raise UsageError(
                f"peers of several clusters run on this machine ({named}): say which with --peer, "
                "or P2PSCHED_PEER"
            )
        secret = read_secret_file(secret_file or Path(chosen.secret_path))
        return same, secret
    wanted = str(parse(address))
    if secret_file is not None:
        return [wanted], read_secret_file(secret_file)
    record = _record_of(records, wanted)
    if record is None:
        raise Refused(
            f"the secret of the peer at {wanted} is not known here: copy the file `secret` from "
            "its data folder and pass it with --secret-file"
        )
    same = [r.address for r in records if r.alive and r.cluster == record.cluster]
    return [wanted, *(a for a in same if a != wanted)], read_secret_file(Path(record.secret_path))


def _record_of(records: Sequence[Record], address: str) -> Record | None:
    """Records of dead processes count too: their secret is still that of their cluster."""
    for record in records:
        if record.address == address and Path(record.secret_path).exists():
            return record
    return None


def who_am_i() -> str:
    """user@host, for people who look at the list of jobs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
