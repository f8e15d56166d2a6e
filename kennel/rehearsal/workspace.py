"""The folders of one rehearsal: what stays (`--out`) and what goes when it ends."""

from __future__ import annotations

import errno
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kennel.errors import KennelError


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Lock `out` for this rehearsal and yield a folder for everything that need not outlive it.

    Raises KennelError when another rehearsal writes to `out`, and for a disk that is full, naming the disk.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KennelError(f"--out {out} cannot be made: {error.strerror}.") from error
    work = Path(tempfile.mkdtemp(prefix="kennel-"))
    try:
        with (out / ".lock").open("w") as lock:
            _lock(lock.fileno(), out)
            yield work
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = f"The disk of {error.filename or f'{work} or {out}'} is full"
            raise KennelError(f"{full}: free some space, or choose others with TMPDIR and --out.") from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise KennelError(f"Another rehearsal is writing to {out}: choose another folder with --out.") from None
