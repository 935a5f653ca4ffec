"""Archives of modules: what `zipfile` writes is read the same, and nothing else is."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.run.host import archive

PARTS = st.text(st.characters(blacklist_characters="/\\\0.", codec="utf-8"), min_size=1, max_size=8)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writing:
        for name, data in files.items():
            writing.writestr(name, data)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    return {entry.name: archive.read(data, entry) for entry in archive.entries(data)}


@given(st.dictionaries(NAMES, st.binary(max_size=200)), st.booleans())
def test_what_zipfile_writes_is_read(files: dict[str, bytes], stored: bool) -> None:
    assert unpacked(packed(files, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)) == files


def test_files_and_folders_are_where_they_were(tmp_path: Path) -> None:
    data = packed({"a.py": b"A = 1\n", "empty/": b"", "b/__init__.py": b"", "b/c/d.py": b"D" * 9})
    archive.extract(data, archive.entries(data), str(tmp_path))
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == ["a.py", "b", "b/__init__.py", "b/c", "b/c/d.py", "empty"]
    assert (tmp_path / "b/c/d.py").read_bytes() == b"D" * 9


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "./x", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a module's file"):
        archive.entries(packed({name: b"x"}))


def test_a_wrong_byte_changes_no_file() -> None:
    """It is refused, or is where it says nothing."""
    files = {"a.py": b"print('hello')\n" * 20, "b.py": bytes(range(256))}
    sound = packed(files)
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 0x41
        try:
            found = unpacked(bytes(damaged))
        except ValueError:
            continue
        assert set(found.values()) <= set(files.values()), place
    for length in range(len(sound)):
        with pytest.raises(ValueError, match=r"cut|no directory|damaged"):
            unpacked(sound[:length])


def test_a_file_that_is_larger_than_it_says_is_not_inflated() -> None:
    sound = packed({"a.py": bytes(10_000_000)})
    entry = archive.entries(sound)[0]
    with pytest.raises(ValueError, match="damaged"):
        archive.read(sound, entry._replace(size=100, checksum=zlib.crc32(bytes(100))))
