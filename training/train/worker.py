"""One process of a job: `python3 -m training.train.worker [--epochs 3 ...]`, started by the launcher or torchrun.

Its place among all comes from torchrun's variables. REPORT and LAUNCHER are set by the launcher only.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from training.distributed.workers import STOPPED
from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters, add_arguments
from training.paths import Paths

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


class StopFlag:
    """Set by SIGTERM; the training loop looks at it after each step."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "is_set", True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher too, which asks with SIGTERM


def main(arguments: Sequence[str]) -> int:
    """Return 0, 1 with the reason reported, or 143."""
    if not _bound_to_launcher():
        return STOPPED
    stop = StopFlag()
    try:
        settings, paths = _settings(arguments), Paths.from_environment()
        from training.train.run import run  # loads torch, after the signal's handler is in place

        _begin()
        return 0 if run(paths, settings, stop) else STOPPED
    except Exception as error:
        follows = _lost_another(error)
        if not (follows or isinstance(error, TrainingError | OSError)):
            traceback.print_exc()
        _report(error, follows)
        return 1


def _bound_to_launcher() -> bool:
    """A launcher that is killed must not leave workers behind; return False if it was before it could be said."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.environ.get("LAUNCHER", str(os.getppid())) == str(os.getppid())


def _settings(arguments: Sequence[str]) -> Hyperparameters:
    parser = argparse.ArgumentParser(prog="python3 -m training.train.worker")
    add_arguments(parser)
    overrides = vars(parser.parse_args(arguments))
    return Hyperparameters.from_strings({**Paths.from_environment().read_config("hyperparameters"), **overrides})


def _begin() -> None:
    """Say that the slow start is over and that from now on this process may wait for others."""
    if "REPORT" in os.environ:
        Path(os.environ["REPORT"]).with_suffix(".begun").touch()


def _lost_another(error: BaseException | None) -> bool:
    """Whether a failure only says that another worker is gone, by its type in torch or by its library's words."""
    while error is not None:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "DistError" in kinds or ("RuntimeError" in kinds and any(word in str(error) for word in _LOST)):
            return True
        error = error.__cause__
    return False


def _report(error: Exception, follows: bool) -> None:
    reason = f"the exchange with the other workers broke ({sentence(error)})" if follows else sentence(error)
    if "REPORT" not in os.environ:
        print(reason, file=sys.stderr, flush=True)
        return
    report = Path(os.environ["REPORT"])
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps({"reason": reason[:1000], "follows": follows}), encoding="utf-8")
    partial.replace(report)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the interpreter drops handlers before its end, and would die of it
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 1:
        os._exit(1)  # the usual way out would wait for threads of the libraries, which wait for lost workers
    sys.exit(code)
