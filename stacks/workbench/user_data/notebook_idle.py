"""Stop this notebook instance when nobody has used it for a while.

notebook_start.sh runs it every few minutes, as root, under the instance's own Python (3.9, standard library only).
Whatever Jupyter does, the clock runs: a Jupyter that no longer answers shows no use, so the instance stops as well.
"""

from __future__ import annotations

import argparse
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path


def main() -> int:
    """Return 0, or the exit code of the AWS CLI if the instance could not be stopped."""
    options = _options()
    seen: Path = options.seen
    if not seen.exists():
        seen.touch()
    try:
        last = last_use(options.jupyter)
    except (OSError, ValueError, KeyError) as error:
        print(f"Jupyter does not answer: {error}", file=sys.stderr)
        last = 0.0
    idle_seconds = time.time() - max(last, seen.stat().st_mtime)
    if last > seen.stat().st_mtime:
        seen.touch()
    if idle_seconds < options.minutes * 60:
        return 0
    return stop(json.loads(options.metadata.read_text())["ResourceArn"])


def last_use(jupyter: str) -> float:
    """Return when a kernel or terminal was last used, in seconds since 1970; a busy kernel is used now."""
    kernels = _get(f"{jupyter}/api/kernels")
    if any(kernel["execution_state"] == "busy" for kernel in kernels):
        return time.time()
    used = [one["last_activity"] for one in kernels + _get(f"{jupyter}/api/terminals")]
    return max((datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() for text in used), default=0.0)


def stop(arn: str) -> int:
    """Stop the instance that this runs on; powering off alone would not end its bill."""
    region, name = arn.split(":")[3], arn.rsplit("/", 1)[-1]
    print(f"Nobody uses {name}: stopping it.")
    command = ["aws", "sagemaker", "stop-notebook-instance", "--notebook-instance-name", name, "--region", region]
    return subprocess.run(command).returncode


def _get(url: str) -> list[dict[str, str]]:
    # The instance's own certificate, on its own loopback: there is nobody to verify.
    with urllib.request.urlopen(url, timeout=20, context=ssl._create_unverified_context()) as answer:
        found: list[dict[str, str]] = json.load(answer)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=int, help="stop after this many minutes without use")
    parser.add_argument("--jupyter", default="https://localhost:8443", help="where Jupyter answers")
    parser.add_argument("--seen", type=Path, default=Path("/run/kennel-seen"), help="file whose age is the idle time")
    parser.add_argument(
        "--metadata", type=Path, default=Path("/opt/ml/metadata/resource-metadata.json"), help="who this instance is"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
