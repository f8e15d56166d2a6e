"""One rank of a training job: `python3 -m training.distributed.worker [--epochs 3 ...]`.

The launcher or torchrun starts it; its rank comes from torchrun's environment variables. It loads torch only once it
can answer SIGTERM.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.distributed.cluster import bind_to_numa_node
from training.errors import TrainingError, sentence
from training.hyperparameters import Hyperparameters, add_arguments
from training.paths import Paths

STOPPED = 143  # 128 + SIGTERM, as a shell would say
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOST_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
_HINTS = {
    -signal.SIGKILL: "was killed, most often for lack of memory: use a larger instance or a smaller batch_size.",
    -signal.SIGBUS: "was ended by SIGBUS, most often for lack of shared memory: give the container more of it.",
}


@dataclass(frozen=True)
class Failure:
    """Why a rank failed. `lost_peer`: it only says that another rank is gone, which has a reason of its own."""

    message: str
    lost_peer: bool = False
    timestamp: float = field(default_factory=time.time)  # seconds since the epoch

    def write(self) -> None:
        """Write it where torchrun and the launcher look for it; without them, print it."""
        file = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if file:
            Path(file).write_text(json.dumps(asdict(self)), encoding="utf-8")
        else:
            print(self.message, file=sys.stderr, flush=True)

    @classmethod
    def from_exit(cls, name: str, code: int) -> "Failure":
        """Return the failure of a process that could not give a reason; a negative `code` is the signal it died of."""
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return cls(f"{name} {_HINTS.get(code) or f'{how} and gave no reason; see the log of the job.'}")


class StopFlag:
    """Set by SIGTERM; the training loop looks at it after each step."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "is_set", True))


def main(arguments: Sequence[str]) -> int:
    """Return 0 when the model is written, 143 when a checkpoint was written after SIGTERM, or 1 with the reason."""
    if not die_with_parent():
        return STOPPED
    stop = StopFlag()
    bind_to_numa_node(os.environ)
    try:
        settings, paths = _settings(arguments), Paths.from_environment()
        from training.train.run import run  # loads torch, after the signal's handler is in place

        return 0 if run(paths, settings, stop) else STOPPED
    except Exception as error:
        lost_peer = _is_lost_peer(error)
        if not (lost_peer or isinstance(error, TrainingError | OSError)):
            traceback.print_exc()
        reason = f"the exchange with the other workers broke ({sentence(error)})" if lost_peer else sentence(error)
        Failure(f"{rank_name(os.environ.get('RANK', '0'))}: {reason}"[:1000], lost_peer).write()
        return 1


def die_with_parent() -> bool:
    """Let the kernel kill this process when the one that started it dies; return False if that died already.

    PARENT_PID says which one that was; without it, whatever is the parent now.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.environ.get("PARENT_PID", str(os.getppid())) == str(os.getppid())


def rank_name(rank: int | str) -> str:
    """Return how messages call a rank of this host: `Rank 1 on algo-2`."""
    return f"Rank {rank} on {os.environ.get('SM_CURRENT_HOST', 'localhost')}"


def _settings(arguments: Sequence[str]) -> Hyperparameters:
    parser = argparse.ArgumentParser(prog="python3 -m training.distributed.worker")
    add_arguments(parser)
    overrides = vars(parser.parse_args(arguments))
    return Hyperparameters.from_strings({**Paths.from_environment().read_config("hyperparameters"), **overrides})


def _is_lost_peer(error: BaseException | None) -> bool:
    """Return whether a failure only says that another rank is gone, by its type in torch or its library's words."""
    while error is not None:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "DistError" in kinds or ("RuntimeError" in kinds and any(word in str(error) for word in _LOST_PEER)):
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The usual way out drops the handler of SIGTERM too early, and waits for threads of the libraries, which may wait
    # for lost ranks.
    os._exit(code)
