"""Modules of the caller that travel with a job, so that peers need not have them.

What is local: a module that is neither p2psched nor the standard library's nor installed among the
site packages, so found beside the script, in the working directory, on PYTHONPATH, or in a project
that is installed to be edited. It travels as the whole of its outermost package, with the other
local modules that the files import. The archive's bytes depend on the files' alone, so code that
has not changed is the same blob.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import io
import os
import pickletools
import re
import site
import sys
import sysconfig
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from p2psched.model import limits
from p2psched.model.errors import UsageError

BYTES_MAX: Final = 32 * limits.MIB  # of the files of one job
FILES_MAX: Final = 4096
KEPT_MAX: Final = 16  # archives, BYTES_MAX in all besides the newest
FRESH_S: Final = 1.0  # who adds a file and submits within it sends the archive without it
CHECKED_MAX: Final = 32  # files; of more than these the state is asked for after CHECK_S
CHECK_S: Final = 0.1
# Longer code is not searched for the modules that it names: name them in `modules`.
SEARCHED_BYTES_MAX: Final = 4 * limits.MIB
_IMPORT: Final = re.compile(rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w.,\t ]+))", re.MULTILINE)
_SKIPPED: Final = frozenset({"__pycache__", "node_modules"})
_MODULE: Final = "\0module"  # stands for a function that imports what it is told
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)

Choice = Literal["auto", "none"] | Sequence[str]


@dataclass(frozen=True, slots=True)
class _Found:
    name: str  # in the archive
    path: str
    size: int
    changed_ns: int


@dataclass(slots=True)
class _Kept:
    files: list[_Found]
    archive: bytes
    looked_s: float  # for files, also new ones
    checked_s: float  # the known ones

    def is_as_before(self, now_s: float) -> bool:
        """True unless one of its files was changed. Many are not asked for each time."""
        if len(self.files) > CHECKED_MAX and now_s - self.checked_s < CHECK_S:
            return True
        self.checked_s = now_s
        return all(map(_is_unchanged, self.files))


class Archives:
    """Keeps the newest archives, because the next job is mostly of the same code. The files of one
    are looked at each time, new ones are looked for after FRESH_S. Threads may share one."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[frozenset[tuple[str, tuple[str, ...]]], _Kept] = OrderedDict()
        self._imports: dict[_Found, set[str]] = {}

    def of(self, names: Iterable[str]) -> bytes:
        """An archive of these modules and what they need; empty for none. Raises UsageError for
        a name that is no module here, or one of a package that can't travel."""
        tops = {name.partition(".")[0] for name in names}
        wanted = frozenset([(top, _places_of(top)) for top in tops])  # the path may change
        with self._lock:
            now_s = self._now_s()
            kept = self._kept.get(wanted)
            old = kept is None or now_s - kept.looked_s >= FRESH_S
            if kept is None or old or not kept.is_as_before(now_s):
                files = self._closure(tops)
                if kept is not None and files == kept.files:
                    archive = kept.archive
                else:
                    archive = _zip(files) if files else b""
                kept = self._kept[wanted] = _Kept(files, archive, now_s, now_s)
                self._keep_few()
            self._kept.move_to_end(wanted)
            return kept.archive

    def _keep_few(self) -> None:
        size = sum(len(kept.archive) for kept in self._kept.values())
        while len(self._kept) > 1 and (size > BYTES_MAX or len(self._kept) > KEPT_MAX):
            _, oldest = self._kept.popitem(last=False)
            size -= len(oldest.archive)

    def _closure(self, tops: Iterable[str]) -> list[_Found]:
        """The files of these modules and of the local ones that they import, sorted."""
        left, seen = set(tops), set(tops)
        files: dict[str, _Found] = {}
        size = 0
        while left:
            top = left.pop()
            for found in _files_of(top):
                files[found.name] = found
                size += found.size
                if len(files) > FILES_MAX or size > BYTES_MAX:
                    raise UsageError(
                        f"module {top!r} and what it imports take more than "
                        f"{BYTES_MAX // limits.MIB} MiB or {FILES_MAX:,} files, so they can't "
                        "travel with the job: install them on the peers and pass modules='none', "
                        "or keep data outside of the package"
                    )
                new = self._imported_by(found) - seen if found.name.endswith(".py") else set()
                seen |= new
                left |= {name for name in new if is_local(name)}
        return [files[name] for name in sorted(files)]

    def _imported_by(self, file: _Found) -> set[str]:
        if file not in self._imports:
            if len(self._imports) >= FILES_MAX:
                self._imports.clear()
            self._imports[file] = _imports_in(Path(file.path).read_bytes())
        return self._imports[file]


ARCHIVES: Final = Archives()  # of this process: its clients send the same modules


def is_local(name: str) -> bool:
    """True for a module whose outermost package should travel."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in {"p2psched", "__main__", ""}:
        return False
    places = _places_of(top)
    return bool(places) and not _are_installed(places)


def importable_as(function: Callable[..., object]) -> str:
    """`module:name` under which an import finds exactly this function; empty if none does."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return ""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    found = found if found is function else getattr(found, "function", None)  # `@task`
    return f"{module}:{name}" if found is function else ""


def named_in(pickled: bytes) -> set[str]:
    """Modules that opening a pickle imports, as far as its opcodes tell."""
    found: set[str] = set()
    if len(pickled) > SEARCHED_BYTES_MAX:
        return found
    before = last = ""
    memo: list[str] = []
    is_module_next = False
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "MEMOIZE":
                memo.append(last)
                continue
            text = ""
            if opcode.name in {"SHORT_BINUNICODE", "BINUNICODE"}:
                text = str(argument)
            elif opcode.name in {"BINGET", "LONG_BINGET"}:
                text = memo[int(str(argument))]
            elif opcode.name == "STACK_GLOBAL":
                found.add(before)
                # How cloudpickle says "the module of this name"; later it says it by the memo.
                is_module = (before, last) == ("cloudpickle.cloudpickle", "subimport")
                text = _MODULE if is_module else ""
            if is_module_next and text:
                found.add(text)
            is_module_next = text == _MODULE or (is_module_next and not text)
            before, last = last, text
    except (ValueError, IndexError):  # no pickle of ours: what it needs is the user's to name
        pass
    return found - {"", _MODULE}


def _imports_in(text: bytes) -> set[str]:
    """Top-level names that a file imports anywhere."""
    found = set()
    for one, several in _IMPORT.findall(text):
        for name in [one] if one else several.split(b","):
            found.add(name.strip().partition(b" ")[0].partition(b".")[0].decode())
    return found - {""}


def _files_of(top: str) -> Iterator[_Found]:
    places = _places_of(top)
    if not places:
        raise UsageError(f"there is no module {top!r} here that could travel with the job")
    for path in map(Path, places):
        if path.is_file():
            yield _found(path.name, path)
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(
                name for name in folders if name not in _SKIPPED and not name.startswith(".")
            )
            for name in sorted(names):
                file = Path(folder, name)
                if name.endswith(".pyc") or name.startswith(".") or not file.is_file():
                    continue
                if name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
                    raise UsageError(
                        f"{top!r} has compiled parts ({name}) and can't travel with the job: "
                        "install it on the peers and pass modules='none'"
                    )
                where = f"{top}/{file.relative_to(path).as_posix()}"
                yield _found(where, file)


def _is_unchanged(file: _Found) -> bool:
    try:
        status = os.stat(file.path)  # noqa: PTH116 - a third of the time of a path's method
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size, file.changed_ns)


def _found(name: str, path: Path) -> _Found:
    status = path.stat()
    return _Found(name, str(path), status.st_size, status.st_mtime_ns)


def _places_of(top: str) -> tuple[str, ...]:
    """The file or the folders of a top-level module; empty if it has none."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return _absolute(tuple(spec.submodule_search_locations))
    if not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        return ()
    return _absolute((spec.origin,))


def _absolute(places: tuple[str, ...]) -> tuple[str, ...]:
    """As the working folder has them now."""
    if all(place.startswith("/") for place in places):
        return places
    return tuple([str(Path(place).absolute()) for place in places])


@functools.cache
def _installation() -> frozenset[str]:
    """Folders of what is installed here. They don't change while a process lives."""
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return frozenset({*places, *site.getsitepackages(), site.getusersitepackages()})


@functools.lru_cache(maxsize=FILES_MAX)
def _are_installed(places: tuple[str, ...]) -> bool:
    """Some of them."""
    return any(map(_is_installed, map(Path, places)))


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _installation()) or bool(
        {"site-packages", "dist-packages"} & set(path.parts)
    )


def _zip(files: Sequence[_Found]) -> bytes:
    import zipfile  # noqa: PLC0415 (most functions bring no modules of their own)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            info = zipfile.ZipInfo(file.name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, Path(file.path).read_bytes())
    return buffer.getvalue()
