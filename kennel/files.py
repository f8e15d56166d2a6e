"""What the commands do with files: replace one as a whole, lock a folder, say that a disk is full."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kennel.errors import KennelError


def replace_text(path: Path, text: str) -> None:
    """Write a new file and rename it to `path`: a reader sees the old content or the new, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8", errors="replace")  # file names may have bytes that are not UTF-8
    fresh.replace(path)


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock `folder` until the block ends; raise KennelError(refusal) while another process has it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KennelError(refusal) from None
        yield


def disk_full(error: Exception, place: str, remedy: str) -> str:
    """Return one sentence where `error` says that a disk is full, else nothing; `place`: where it names no file."""
    if not (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return ""
    return f"The disk of {error.filename or place} is full: free some space, or {remedy}."
