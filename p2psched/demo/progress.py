"""Live progress of the demo: bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)

LINE_PERIOD_S: Final = 5.0  # between plain lines of progress; events are printed at once
BAR_WIDTH: Final = 30


class Stage:
    """Where the demo's story is told while it happens. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._counts: dict[str, tuple[int, int]] = {}
        self._line_due_s = 0.0
        self._bars: Progress | None = None
        self._bar_of: dict[str, TaskID] = {}
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("  {task.description:<12}"),
                BarColumn(BAR_WIDTH),
                MofNCompleteColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Stage:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @property
    def elapsed_s(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began_s

    def tell(self, text: str, *, important: bool = False) -> None:
        """Something happened."""
        line = f"[dim]{self.elapsed_s:6.1f} s[/]  {escape(text)}"
        self._console.print(f"[bold]{line}[/]" if important else line, highlight=False)

    def count(self, name: str, done: int, total: int) -> None:
        """So many of `total` are done: a bar on a terminal, else a line now and then."""
        if self._bars is not None:
            if name not in self._bar_of:
                self._bar_of[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._bar_of[name], completed=done)
            return
        if done < total:
            self._counts[name] = (done, total)
        else:  # an event tells that it is over
            self._counts.pop(name, None)
        if self._counts and time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + LINE_PERIOD_S
            self.tell(", ".join(f"{of} {n}/{most}" for of, (n, most) in self._counts.items()))
