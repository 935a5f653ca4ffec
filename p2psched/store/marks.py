"""Empty files that say something of their folder, over any crash."""

from __future__ import annotations

from pathlib import Path

from p2psched.store.files import refusing, replace_file, sync_folder


class Mark:
    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_set(self) -> bool:
        return self._path.exists()

    def set(self) -> None:
        """Durable on return. Raises Refused."""
        with refusing(f"write {self._path}"):
            replace_file(self._path, b"", durable=True)

    def clear(self) -> None:
        """As `set`. One that is not set is left so."""
        if self.is_set:
            with refusing(f"remove {self._path}"):
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)
