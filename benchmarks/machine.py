"""What a figure was measured on, in one line."""

import platform
from datetime import date

from kennel.loadtest import machine


def describe() -> str:
    """Return date, cores, processor with its vector units, memory, system and Python."""
    return (
        f"{date.today().isoformat()}, {machine.describe()}, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )
