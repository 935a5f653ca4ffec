"""Two versions of p2psched, each installed as a user would have it: in an environment of its own.

The older one is built from this repository's history: the commit in P2PSCHED_UPGRADE_FROM, else the
one that the file FROM names, else the one before this. Dependencies are those of the environment
that runs the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FROM: Final = Path(__file__).with_name("FROM")
VARIABLE: Final = "P2PSCHED_UPGRADE_FROM"
BUILD_S: Final = 180.0
_LEVEL: Final = "from p2psched.core.levels import KNOWN_LEVEL; print(KNOWN_LEVEL)"


class NoHistory(Exception):
    """There is nothing to upgrade from; says why."""


@dataclass(frozen=True, slots=True)
class Install:
    name: str
    folder: Path
    level: int  # that it knows

    @property
    def command(self) -> Path:
        return self.folder / "bin" / "p2psched"


def older_commit() -> str:
    """Raises NoHistory."""
    named = os.environ.get(VARIABLE) or (FROM.read_text().strip() if FROM.exists() else "")
    for wanted in filter(None, (named, "HEAD~1")):
        asked = ["git", "rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}"]
        try:
            done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise NoHistory("git is not installed") from error
        if done.returncode == 0:
            return done.stdout.strip()
        if wanted == os.environ.get(VARIABLE):
            raise NoHistory(f"{VARIABLE} names {wanted}, which is not in this repository's history")
    raise NoHistory("this checkout has no history: neither the commit in FROM nor the last one")


def install_commit(commit: str, folder: Path) -> Install:
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    return _install(source, folder, commit[:9])


def install_here(folder: Path) -> Install:
    """This checkout, as it is on the disk."""
    return _install(ROOT, folder, "this version")


def _install(source: Path, folder: Path, name: str) -> Install:
    venv = folder / "venv"
    python = venv / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--no-deps", str(source))
    own = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    # Behind its own: p2psched is looked for there first, and an editable one here is not seen.
    (Path(own.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return Install(name, venv, int(_run(str(python), "-c", _LEVEL)))


def _run(*argv: str) -> str:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        argv,
        cwd="/",  # nothing of this checkout is found by chance
        env=environ,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stderr[-2000:]}"
    return done.stdout
