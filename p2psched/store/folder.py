"""The data folder: who this peer is, and the lock that lets only one process be it.

    identity      peer id, cluster, name, incarnation; JSON with a checksum
    lock          held while a process uses the folder; names its pid
    recovering    the identity that it is to have: half recovered, and nobody starts from it
    secret        the cluster's secret as hex digits, mode 0600
    peers.json    names and addresses of others; advice for finding them again
    ledger/ run/ blobs/ results.db    kept by others

It refuses a folder that is not ours (nothing is written there), one that a newer version wrote,
and one whose identity is damaged: a peer that forgot who it is must not vote under a guess.

Invariant: an incarnation number is durable before anybody hears it, so none is ever used twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import random
import re
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import msgspec

from p2psched.model import ids
from p2psched.model.errors import Damaged, NotFound, Refused, UsageError
from p2psched.model.ids import ClusterId, PeerId
from p2psched.store.address_book import AddressBook
from p2psched.store.files import aside_of, read_file, refusing, replace_file, sync_folder
from p2psched.store.marks import Mark

FORMAT: Final = 1
RECOVERING: Final = "recovering"
NAME_LEN_MAX: Final = 64
SECRET_BYTES_MIN: Final = 16
SECRET_BYTES_MAX: Final = 64

_IDENTITY_BYTES_MAX: Final = 4096
_FOLDER_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LEN_MAX - 1}}}")
_RESERVED: Final = "run"  # records of local peers live beside the data folders: store.records


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a peer is. `cluster` is None until a joiner has learnt it."""

    format: int = FORMAT
    peer: PeerId
    cluster: ClusterId | None = None
    name: str
    incarnation: int = 0  # of the last process that used the folder; 0: none yet

    def __post_init__(self) -> None:
        if not ids.is_id(self.peer) or not (self.cluster is None or ids.is_id(self.cluster)):
            raise ValueError("an id has 32 hex digits")
        if not 1 <= len(self.name) <= NAME_LEN_MAX or not self.name.isprintable():
            raise ValueError(f"a name has 1 to {NAME_LEN_MAX} printable characters")
        if self.incarnation < 0:
            raise ValueError("incarnations count from 1")


class DataFolder:
    """An open data folder: this process holds its lock until `close`. Use it from one thread."""

    def __init__(self, path: Path, lock: int, identity: Identity, *, is_new: bool) -> None:
        """Not for callers: see `open`."""
        self.is_new: Final = is_new  # made by this process
        self.path: Final = path
        self.ledger_path: Final = path / "ledger"
        self.run_path: Final = path / "run"
        self.results_path: Final = path / "results.db"
        self.blobs_path: Final = path / "blobs"
        self.secret_path: Final = path / "secret"
        self.address_book: Final = AddressBook(path / "peers.json")
        self._founding: Final = Mark(path / "founding")
        # This peer holds no ledger and has promised nothing; clear once there is one on the disk.
        self.following: Final = Mark(path / "following")
        self._lock = lock
        self._identity = identity

    @classmethod
    def open(
        cls, path: Path, *, create: bool, name: str | None = None, to_recover: bool = False
    ) -> Self:
        """Take a data folder into use. With `create` a missing or empty one becomes the folder of
        a new peer called `name` (by default as the folder is); an existing one keeps its name. One
        that is half recovered is only opened `to_recover`.
        Raises Refused, NotFound (nothing there and not `create`), UsageError, Damaged."""
        with refusing(f"use {path} as data folder"):
            _check_ours(path, create=create)
            if create and not path.exists():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(path.parent)
            lock = _take_lock(path)
            try:
                if not to_recover and (path / RECOVERING).exists():
                    raise Refused(
                        f"a recovery of {path} was begun and not ended: end it first, with "
                        f"`p2psched ledger recover {path}`"
                    )
                is_new = not (path / "identity").exists()
                if not is_new:
                    identity = read_identity(path)
                else:
                    identity = _new_identity(path.resolve().name if name is None else name)
                    write_identity(path, identity)
                for sub in ("ledger", "run"):
                    (path / sub).mkdir(mode=0o700, exist_ok=True)
                sync_folder(path)
                return cls(path, lock, identity, is_new=is_new)
            except BaseException:
                os.close(lock)
                raise

    @property
    def identity(self) -> Identity:
        return self._identity

    def set_cluster(self, cluster: ClusterId) -> None:
        """Keep the cluster that this peer belongs to, durably. Refused if it is another one."""
        self.check_cluster(cluster)
        if self._identity.cluster is None:
            self._change(msgspec.structs.replace(self._identity, cluster=cluster))

    def check_cluster(self, cluster: ClusterId) -> None:
        """Refused if this peer belongs to another cluster."""
        kept = self._identity.cluster
        if kept not in (None, cluster):
            raise Refused(
                f"data folder {self.path} belongs to cluster {kept}, not to {cluster}: "
                "choose another --data to join that one"
            )

    def begin_founding(self, cluster: ClusterId) -> None:
        """This peer is the first of a new cluster; true until `end_founding`, over any crash."""
        self._founding.set()
        self.set_cluster(cluster)

    @property
    def is_founding(self) -> bool:
        return self._founding.is_set

    def end_founding(self) -> None:
        """The ledger of the new cluster is on disk."""
        self._founding.clear()

    def next_incarnation(self) -> int:
        """A number that no process on this folder had before, durable on return."""
        following = self._identity.incarnation + 1
        self._change(msgspec.structs.replace(self._identity, incarnation=following))
        return following

    def read_secret(self) -> bytes | None:
        """The cluster's secret, or None if there is none yet. Refused if others may read it."""
        return read_secret_file(self.secret_path) if self.secret_path.exists() else None

    def write_secret(self, secret: bytes) -> None:
        """Keep the cluster's secret, durably, readable by this user alone."""
        assert SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX
        with refusing(f"write {self.secret_path}"):
            replace_file(self.secret_path, f"{secret.hex()}\n".encode(), durable=True)

    # --- another identity, in another cluster: see `peer.recovering` ---

    def begin_recovery(self, identity: Identity) -> Identity:
        """Until `end_recovery` nobody starts from this folder. Returns the identity that it is to
        have: one that an earlier try began with, or this one."""
        note = self.path / RECOVERING
        with refusing(f"write {note}"):
            if note.exists():
                return _parse_identity(self.path, note)
            replace_file(note, _identity_text(identity), durable=True)
        return identity

    def end_recovery(self, identity: Identity) -> None:
        """The ledger is that of the new cluster. May be repeated."""
        if self._identity.peer != identity.peer:
            self._change(identity)
        with refusing(f"write {self.path}"):
            (self.path / "peers.json").unlink(missing_ok=True)  # nobody of before is one of ours
            (self.path / RECOVERING).unlink(missing_ok=True)
            sync_folder(self.path)

    def close(self) -> None:
        """Let another process use the folder. Idempotent."""
        if self._lock >= 0:
            # The pid goes first: a name in a lock that nobody holds would mislead.
            lock, self._lock = self._lock, -1
            try:
                os.ftruncate(lock, 0)
                # A child that the program around us forked holds the descriptor too.
                fcntl.flock(lock, fcntl.LOCK_UN)
            finally:
                os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _change(self, identity: Identity) -> None:
        assert self._lock >= 0, "a closed folder may be another process's by now"
        with refusing(f"write {self.path / 'identity'}"):
            write_identity(self.path, identity)
        self._identity = identity


def set_aside(path: Path) -> Path:
    """Give a data folder that no process uses another name, so that a new one can take its place;
    returns that name. Raises Refused."""
    identity = read_identity(path)
    aside = path.with_name(f"{path.name}.removed-{ids.short(identity.peer)}")
    with refusing(f"set {path} aside"):
        lock = _take_lock(path)
        try:
            if aside.exists():
                raise Refused(f"{aside} is there already: move it away, or choose another --data")
            path.rename(aside)
            sync_folder(path.parent)
        finally:
            os.close(lock)
    return aside


def default_data_folder(name: str, environ: Mapping[str, str]) -> Path:
    """Where the peer `name` keeps its data unless told otherwise: `$XDG_STATE_HOME/p2psched/name`
    or `~/.local/state/p2psched/name`; for root without a home `/var/lib/p2psched/name`."""
    if not _FOLDER_NAME.fullmatch(name) or name == _RESERVED:
        raise UsageError(
            f"{name!r} can't name a folder: use 1 to {NAME_LEN_MAX} of letters, digits, '.', '_', "
            f"'-', starting with a letter or digit, and not {_RESERVED!r}; or pass --data"
        )
    state = state_home(environ)
    if state is None and os.geteuid() != 0:
        raise UsageError("no home folder is known for this user: pass --data")
    return (Path("/var/lib") if state is None else state) / "p2psched" / name


def state_home(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_STATE_HOME` or `~/.local/state` (XDG base directories: relative paths are ignored);
    None if there is no home. Root's home counts only if the environment names it, as a service
    has none."""
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if state.startswith("/"):
        return Path(state)
    if not home.startswith("/") and os.geteuid() != 0:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = ""
    return Path(home) / ".local" / "state" if home.startswith("/") else None


def read_secret_file(path: Path) -> bytes:
    """A secret as hex digits from a file that only this user (or root) can read. Raises Refused;
    no message shows any of the content."""
    with refusing(f"read the secret {path}"):
        try:
            data, status = read_file(path, 4 * SECRET_BYTES_MAX)
        except ValueError as fault:
            raise Refused(f"{path} holds no secret: it is {fault}") from fault
    if status.st_mode & 0o077:
        raise Refused(f"others can read the secret {path}: run `chmod 600 {path}`")
    if status.st_uid not in {os.geteuid(), 0}:
        raise Refused(f"the secret {path} belongs to another user: copy it to a file of your own")
    try:
        secret = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        # Without a cause: its message would show a piece of the content.
        raise Refused(f"{path} holds no secret: expected hex digits only") from None
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise Refused(
            f"{path} holds no secret: expected {2 * SECRET_BYTES_MIN} to {2 * SECRET_BYTES_MAX} "
            f"hex digits, found {2 * len(secret)}"
        )
    return secret


def _check_ours(path: Path, *, create: bool) -> None:
    """Decide by looking only whether the folder may be used."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        names = set()
    if "identity" in names:
        status = path.stat()
        if status.st_uid != os.geteuid() and os.geteuid() != 0:
            raise Refused(f"data folder {path} belongs to another user: choose another --data")
        return
    # A first start that crashed leaves these two, and nothing that is worth keeping.
    if names - {"lock", aside_of(path / "identity").name}:
        raise Refused(
            f"{path} holds other files and is no data folder of p2psched: choose another --data"
        )
    if not create:
        raise NotFound(f"no peer keeps its data in {path}: check --data, or start a peer there")


def _take_lock(path: Path) -> int:
    """The descriptor that holds the lock. Refused, with the holder's pid, if it is taken."""
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)
    descriptor = os.open(
        path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise Refused(
            f"data folder {path} is in use by process {holder or '(starting)'}: stop it, or choose "
            "another --data"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _new_identity(name: str) -> Identity:
    try:
        return Identity(peer=PeerId(ids.new_id(random.SystemRandom())), name=name)
    except ValueError as fault:
        raise UsageError(f"{name!r} can't name a peer: {fault}") from fault


def write_identity(path: Path, identity: Identity) -> None:
    """Of a data folder that nobody uses yet. Durable on return. Raises OSError."""
    replace_file(path / "identity", _identity_text(identity), durable=True)


def _identity_text(identity: Identity) -> bytes:
    return _text_of({**msgspec.structs.asdict(identity), "crc": _crc(identity)})


def _text_of(fields: object) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"


def read_identity(path: Path) -> Identity:
    """Of a data folder, which is not locked for that. Raises Damaged, Refused, OSError."""
    return _parse_identity(path, path / "identity")


def _parse_identity(path: Path, file: Path) -> Identity:
    try:
        data, _ = read_file(file, _IDENTITY_BYTES_MAX)
        fields = json.loads(data)
        if isinstance(fields, dict) and isinstance(fields.get("format"), int):
            _check_format(path, fields["format"])
        identity = msgspec.convert(fields, Identity)
        # A name of a field that is damaged would leave it at its default, and a newer version has
        # another format; a file that is cut or blurred without harm is on a bad disk all the same.
        if data != _text_of(fields) or fields.keys() - {*Identity.__struct_fields__, "crc"}:
            raise ValueError("it is not as it was written")
        if fields.get("crc") != _crc(identity):
            raise ValueError("the checksum does not match")
    except (ValueError, RecursionError) as fault:
        raise Damaged(
            f"the identity of data folder {path} is damaged ({fault}): it is not used, since a "
            "wrong one could vote twice; join again with an empty --data"
        ) from fault
    return identity


def _check_format(path: Path, found: int) -> None:
    if found > FORMAT:
        raise Refused(
            f"data folder {path} was written by a newer p2psched (format {found}, this one knows "
            f"{FORMAT}): run that version"
        )


def _crc(identity: Identity) -> str:
    return f"{zlib.crc32(msgspec.msgpack.encode(identity)):08x}"
