"""Our side of a rival's process: start it, have it measure, take its figures, see it end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.registry import Unsupported

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".peers" / "bin" / "python"
RIVALS: Final = ("dask", "ray", "celery")
TIMEOUT_S: Final = 300.0
REASON_LEN_MAX: Final = 600
DEADLY: Final = "recovery_"  # such a measure leaves no rival that others could be taken with


@dataclass(frozen=True, slots=True)
class Found:
    version: str
    figures: Mapping[str, Mapping[str, float]]  # by measure
    missing: Mapping[str, str]


def apart(measures: Sequence[str]) -> list[list[str]]:
    """Those that one process of a rival can take."""
    lasting = [name for name in measures if not name.startswith(DEADLY)]
    groups = [lasting] if lasting else []
    return [*groups, *([name] for name in measures if name.startswith(DEADLY))]


async def run(rival: str, measures: Sequence[str]) -> Found:
    """Raises Unsupported with the reason if the rival isn't installed or doesn't work here."""
    if not PYTHON.exists():
        raise Unsupported("no environment for rivals: `make bench-peers` makes it")
    process = await asyncio.create_subprocess_exec(
        *(str(PYTHON), "-m", "bench.rivals.main", rival, *measures),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise Unsupported(f"{rival} did not end within {TIMEOUT_S:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what is left of it
            os.killpg(process.pid, signal.SIGKILL)
    return read(out.decode(), err.decode(), process.returncode or 0)


def read(out: str, err: str, code: int) -> Found:
    """What a rival's process printed. Raises Unsupported."""
    lines = [line for line in out.splitlines() if line.startswith('{"version"')]
    if code or not lines:
        # Of a traceback the last line says what is wrong; the others name this machine's folders.
        text = (err.strip() or out.strip() or "it said nothing").splitlines()[-1]
        raise Unsupported(f"exit {code}: {text[:REASON_LEN_MAX]}")
    found = json.loads(lines[-1])
    return Found(found["version"], found["figures"], found["missing"])
