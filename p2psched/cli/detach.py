"""A peer in the background: started in a session of its own, watched until it is ready.

The child says that it is ready on stdout, a pipe. Its stderr is a nameless file at first, because
before the peer has taken its data folder into use nothing may be written there; then it turns to
`peer.log` in that folder and takes along what it has said so far.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from p2psched.cli.output import Output, note, write_bytes, write_line
from p2psched.model.config import Config
from p2psched.model.errors import Unavailable
from p2psched.model.needs import AVERAGE_WEIGHT

LOG_NAME: Final = "peer.log"
READY_BYTES_MAX: Final = 64 * 1024
NOTES_BYTES_MAX: Final = 1024 * 1024  # what a child may say before it is ready, and is kept


def start_detached(
    config: Config, *, log_level: str, log_json: bool, output: Output, patience_s: float
) -> None:
    """Start the peer, wait until it is ready, print what it prints. Raises typer.Exit with its
    exit code if it fails, Unavailable if it is not ready in time (then it goes on)."""
    argv = [sys.executable, "-m", "p2psched", "start", "--detached", *_arguments(config)]
    log = Path(config.data) / LOG_NAME
    before_bytes = log.stat().st_size if log.exists() else 0
    argv += ["--log-level", log_level, "--output", output, *(["--log-json"] if log_json else [])]
    with tempfile.TemporaryFile() as notes:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=notes,
            cwd="/",  # a peer must not hold the folder that it was started from
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            with child.stdout:
                answer = _read_until_closed(child.stdout, patience_s)
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
        if answer is None:
            raise Unavailable(
                f"peer {config.name} (pid {child.pid}) is not ready after {patience_s:g} s and "
                f"goes on in the background: {_last_line(notes) or 'no reason is known'}; its log "
                f"is {log}"
            )
        if not answer:
            code = child.wait()
            _pass_on(notes, log, before_bytes)
            import typer  # noqa: PLC0415 (not in the peer's own process)

            raise typer.Exit(code if code > 0 else 1)
    if output is not Output.TABLE:
        write_bytes(sys.stdout, answer)
        return
    lines = answer.decode().splitlines()
    # By the name of the folder, which may be another one than this start was told.
    stop = lines[-1].replace("Ctrl-C, or ", "")
    for line in [*lines[:-1], f"log    {log}", stop]:
        write_line(line)


def enter_background(folder: Path, *, is_ready: bool) -> None:
    """In the child: from here on stderr is the log in the data folder, and stdout too once it is
    ready: before, whoever started it reads there. Safe to repeat, in another folder, too."""
    log = os.open(folder / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        sys.stderr.flush()
        if os.fstat(2).st_nlink == 0:  # the nameless one, not a log already
            # The file was written at its end, and reading by position leaves it so.
            os.write(log, os.pread(2, NOTES_BYTES_MAX, 0))
        for descriptor in (1, 2) if is_ready else (2,):
            os.dup2(log, descriptor)
    finally:
        os.close(log)


def _arguments(config: Config) -> list[str]:
    given = ["--name", config.name, "--data", config.data, "--listen", config.listen]
    given += ["--slots", str(config.slots), "--python", config.python]
    for address in config.join:
        given += ["--join", address]
    if config.advertise is not None:
        given += ["--advertise", config.advertise]
    if config.secret_file is not None:
        given += ["--secret-file", str(Path(config.secret_file).expanduser().absolute())]
    given += ["--keep-results", f"{config.keep_ms}ms" if config.keep_ms else "0"]
    given += ["--keep-bytes", str(config.keep_bytes)]
    given += ["--timing", config.timing, "--replace-after", f"{config.replace_ms}ms"]
    given += ["--retry-budget", str(config.retry_percent)]
    given += ["--stall-after", f"{config.stall_ms}ms"]
    given += ["--checkpoint-budget", str(config.checkpoint_budget)]
    given += ["--battery-min", str(config.battery_min), "--duty", str(config.duty // 10)]
    given += ["--max-disconnect", f"{config.max_disconnect_ms}ms"]
    if config.zone:
        given += ["--zone", config.zone]
    if config.ledger is not None:
        given += ["--ledger", config.ledger]
    for address in config.group:
        given += ["--group", address]
    given += _having(config)
    flags = {
        "--no-vote": config.votes is False,
        "--follow": config.follows is True,
        "--no-follow": config.follows is False,
        "--insecure": config.insecure,
        "--anew": config.anew,
    }
    return given + [flag for flag, is_given in flags.items() if is_given]


def _read_until_closed(pipe: IO[bytes], patience_s: float) -> bytes | None:
    """All that comes before the other end closes; None if that takes too long."""
    deadline = time.monotonic() + patience_s
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(found) < READY_BYTES_MAX:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            data = os.read(pipe.fileno(), READY_BYTES_MAX)
            if not data:
                break
            found += data
    return found


def _having(config: Config) -> list[str]:
    """What the peer has, and who else may say where tasks go."""
    given = [word for key, value in config.labels for word in ("--label", f"{key}={value}")]
    if config.gpus is not None:
        given += ["--gpus", str(config.gpus)]
    if config.memory_mib is not None:
        given += ["--memory", f"{config.memory_mib}M"]
    if config.policy_file is not None:
        given += ["--policy-file", config.policy_file]
    for option, words in (("--cgroup", config.cgroups), ("--pass-env", config.pass_env)):
        given += [word for value in words for word in (option, value)]
    return [*given, "--weight", str(config.weight / AVERAGE_WEIGHT)]


def _pass_on(notes: IO[bytes], log: Path, before_bytes: int) -> None:
    """What the failed child said; if it had turned to its log by then, its error from there."""
    text = os.pread(notes.fileno(), NOTES_BYTES_MAX, 0).decode(errors="replace")
    sys.stderr.write(text)
    sys.stderr.flush()
    if "error" not in text:
        reason = _error_in(log, before_bytes)
        note(reason or f"error: the peer ended before it was ready: see {log}")


def _error_in(log: Path, before_bytes: int) -> str:
    """The last error that a log tells behind its first bytes, which are of earlier starts."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(before_bytes if before_bytes <= size else 0, size - NOTES_BYTES_MAX))
            lines = file.read(NOTES_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.startswith("error: ")), "")


def _last_line(notes: IO[bytes]) -> str:
    text = os.pread(notes.fileno(), NOTES_BYTES_MAX, 0).decode(errors="replace")
    return text.strip().rpartition("\n")[2]
