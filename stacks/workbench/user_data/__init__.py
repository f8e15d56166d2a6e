"""The scripts that AWS runs when an instance boots; this module fills in their values at synth."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def script(name: str, **values: str) -> str:
    """Return user_data/<name> with each `@@NAME@@` replaced; raise KeyError for a value without a placeholder."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    for key, value in values.items():
        if f"@@{key}@@" not in text:
            raise KeyError(f"user_data/{name} has no place for {key}")
        text = text.replace(f"@@{key}@@", value.rstrip("\n"))
    return text
