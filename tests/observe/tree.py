"""Folders that look like what the kernel shows, for sensors."""

from __future__ import annotations

from pathlib import Path

from p2psched.observe.readings import Roots


class Tree:
    """Below `folder`; paths are given as on a real machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = Roots(folder / "proc", folder / "sys", folder / "dev")
        self.write("/proc/sys/kernel/random/boot_id", "5c2f\n")

    def write(self, path: str, text: object = "") -> None:
        target = self.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(str(text))

    def stat(self, *processors: tuple[int, int]) -> None:
        """(ticks not idle, ticks idle) of each."""
        lines = [
            f"cpu{i} {busy} 0 0 {idle} 0 0 0 0 0 0" for i, (busy, idle) in enumerate(processors)
        ]
        busy, idle = (sum(column) for column in zip(*processors, strict=True))
        self.write("/proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n" + "\n".join(lines) + "\n")

    def process(self, pid: int, ticks: int, *, waited: int = 0, children: str = "") -> None:
        fields = ["S", "1", *["0"] * 9, str(ticks), "0", str(waited), "0", "20"]
        self.write(f"/proc/{pid}/stat", f"{pid} (a ) name) {' '.join(fields)}")
        self.write(f"/proc/{pid}/task/{pid}/children", children)
