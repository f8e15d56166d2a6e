"""One process of a job, as the launcher starts it: `python3 -m training.worker SETTINGS_JSON REASON_FILE PID`."""

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters
from training.paths import Paths

STOPPED = 143
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StopFlag:
    """Set by SIGTERM; the training loop looks at it after each step."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "is_set", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher too, which asks with SIGTERM


def main(arguments: list[str]) -> int:
    """Return 0, 1 with the reason in the file named, or 143."""
    # A launcher that is killed must not leave workers behind; it may have been before the call.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(arguments[2]):
        return STOPPED
    stop = StopFlag()
    reason_file = Path(arguments[1])
    try:
        settings = Hyperparameters.from_strings(json.loads(arguments[0]))
        from training.run import run  # loads torch, after the signal's handler is in place

        return 0 if run(Paths.from_environment(), settings, stop) else STOPPED
    except Exception as error:
        if not isinstance(error, TrainingError | OSError):
            traceback.print_exc()
        reason_file.write_text(sentence(error), encoding="utf-8")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
