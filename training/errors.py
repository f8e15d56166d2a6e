"""What goes wrong in a way that its reader can mend."""

import errno


class TrainingError(Exception):
    """One sentence for the person who started the job: what is wrong and what to do. No traceback is printed."""


def sentence(error: BaseException) -> str:
    """Return the failure's reason in one line of at most 1,000 characters (SageMaker cuts at 1,024)."""
    if isinstance(error, TrainingError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = f"No space is left for {error.filename or 'the output'}; give the job a larger volume."
    elif (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, which is not loaded here
        text = "The job ran out of memory; choose a larger instance or a smaller batch_size."
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:1000]
