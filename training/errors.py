"""Failures that the person who started a job can mend, and the one sentence that names a failure's reason."""

import errno

_ADVICE = {
    errno.ENOSPC: "No space is left for {file}; give the job a larger volume.",
    errno.EDQUOT: "The quota of the disk is used up by {file}; raise it or give the job a volume of its own.",
    errno.EFBIG: "{file} grew beyond what a file may be here; raise the limit (ulimit -f) or use another file system.",
    errno.EROFS: "{file} lies on a read-only file system; mount it writable.",
    errno.EACCES: "{file} may not be opened by this user; check its owner and permissions.",
}


class TrainingError(Exception):
    """One sentence for the person who started the job: what is wrong and what to do. No traceback is printed."""


def sentence(error: BaseException) -> str:
    """Return the failure's reason in one line of at most 1,000 characters (SageMaker cuts at 1,024)."""
    if isinstance(error, TrainingError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno in _ADVICE:
        text = _ADVICE[error.errno].format(file=error.filename or "The output")
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, not loaded here
        text = "The job ran out of memory; choose a larger instance or a smaller batch_size."
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:1000]
