"""Programs to compare with, installed beside the environment and never into it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib.servers import NotServed


def provide(packages: Sequence[str]) -> Path:
    """A folder for sys.path with exactly these (`name==version`), what they need being named too.

    Kept in the user's cache. Raises NotServed with pip's words.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kennel-benchmarks"
    # Of another Python they would not fit.
    folder = home / "-".join([f"python{sys.version_info[0]}.{sys.version_info[1]}", *packages]).replace("==", "-")
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as fresh:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--target", f"{fresh}/packages", *packages], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotServed(f"not installed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1][:200]}")
        shutil.move(f"{fresh}/packages", folder)
    return folder
