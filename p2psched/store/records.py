"""Records of this user's local peers, so that commands find them without an address.

One small file a peer, in a folder that only this user can write. A record is a hint, never a
right: it says where a peer listens and where its secret lies, and holds no secret itself. It
refuses a folder that another user made or could change, since its records would send the caller's
secret to a stranger.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model import ids
from p2psched.model.errors import Refused
from p2psched.model.ids import ClusterId, PeerId
from p2psched.store.files import read_file, refusing, replace_file
from p2psched.store.folder import state_home

RECORDS_MAX: Final = 1000  # further ones in the folder are not looked at
RECORD_BYTES_MAX: Final = 16 * 1024

_SUFFIX: Final = ".json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A local peer. `alive` is judged when records are listed."""

    peer: PeerId
    cluster: ClusterId
    name: str
    address: str  # host:port
    pid: int
    data_folder: str
    secret_path: str
    started_ms: int  # Unix time, for people and for the order of the list
    alive: bool = True
    embedded: bool = False  # the process is another program's, which may live on without the peer


class _Kept(msgspec.Struct, frozen=True):
    """A record with what tells its process from a later one with the same pid."""

    record: Record
    start_ticks: int | None


def default_runtime_dir(environ: Mapping[str, str]) -> Path:
    """Where records are: `$XDG_RUNTIME_DIR/p2psched`, `~/.local/state/p2psched/run`, or
    `/tmp/p2psched-<uid>`, the first whose parent is this user's."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # After `su` or `sudo -E` it may name another user's folder, or one that is gone.
    if runtime.startswith("/") and _is_ours(Path(runtime)):
        return Path(runtime) / "p2psched"
    state = state_home(environ)
    if state is not None:
        return state / "p2psched" / "run"
    return Path("/tmp") / f"p2psched-{os.geteuid()}"  # noqa: S108 (owner and mode are checked)


def write_record(directory: Path, record: Record) -> None:
    """Make a local peer known. Raises Refused."""
    kept = _Kept(record, _start_ticks(record.pid))
    with refusing(f"write the record of this peer to {directory}"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(directory)
        replace_file(
            directory / f"{record.peer}{_SUFFIX}", msgspec.json.encode(kept), durable=False
        )


def remove_record(directory: Path, peer: PeerId) -> None:
    """Forget a local peer; no error if it is not known."""
    with refusing(f"remove the record of peer {ids.short(peer)} from {directory}"):
        (directory / f"{peer}{_SUFFIX}").unlink(missing_ok=True)


def list_records(directory: Path) -> list[Record]:
    """Local peers: those alive first, each group newest first. The record of a dead process stays
    while its data folder is there (its secret can still be of use) and is removed otherwise.
    Files that are no records are passed over. Raises Refused."""
    with refusing(f"read the records of local peers in {directory}"):
        try:
            _check(directory)
        except FileNotFoundError:
            return []
        names = sorted(entry.name for entry in directory.iterdir())[:RECORDS_MAX]
    records = [record for name in names if (record := _read(directory / name)) is not None]
    return sorted(records, key=lambda r: (not r.alive, -r.started_ms, r.peer))


def _read(path: Path) -> Record | None:
    if path.suffix != _SUFFIX or not ids.is_id(path.stem) or path.is_symlink():
        return None
    try:
        kept = msgspec.json.decode(read_file(path, RECORD_BYTES_MAX)[0], type=_Kept)
    except (OSError, ValueError):
        return None
    record = kept.record
    ticks = _start_ticks(record.pid)
    alive = ticks is not None and ticks == kept.start_ticks
    if not alive and not Path(record.data_folder).is_dir():
        # Another command may do the same just now, or the disk be read-only: no harm in either.
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return msgspec.structs.replace(record, alive=alive)


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none (or a zombie).
    Together with the pid it names a process for as long as the machine runs."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold spaces of its own.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _is_ours(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _check(directory: Path) -> None:
    """Raises FileNotFoundError if there is none, Refused if it is not this user's alone."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f"{directory} is no folder (or a symbolic link): remove it")
    if status.st_uid != os.geteuid():
        raise Refused(
            f"{directory} belongs to another user: its records can't be trusted; set "
            "P2PSCHED_RUNTIME_DIR to a folder of your own"
        )
    if status.st_mode & 0o077:
        raise Refused(f"others can use {directory}: run `chmod 700 {directory}`")
