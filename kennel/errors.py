"""The errors that the operator can put right, and the one for what works only in the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the repository, or where the wheel was installed


class KennelError(Exception):
    """Something that the operator can put right; the text is one sentence that says what and how."""


def require_repository(what: str) -> None:
    """Raise KennelError where `kennel` was installed from its wheel: `what` runs the app or a container's program."""
    if not (ROOT / "app.py").is_file():
        raise KennelError(f"{what} needs Kennel's repository: clone it, run `make env` and use its .venv/bin/kennel.")
