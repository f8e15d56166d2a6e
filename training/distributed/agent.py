"""torchrun for the ranks of this host: `python3 -m training.distributed.agent TORCHRUN'S ARGUMENTS`.

It is `torch.distributed.run`, except that it dies with the launcher and says in one sentence what went wrong.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from training.distributed.worker import STOPPED, Failure, die_with_parent, rank_name
from training.errors import sentence

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_LOOPBACK = "127.0.0.1"


def main(arguments: Sequence[str]) -> int:
    """Return 0 when all ranks of this host are done, 143 when they stopped, 1 when one failed."""
    if not die_with_parent():
        return STOPPED
    os.environ["PARENT_PID"] = str(os.getpid())  # of the workers
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # It calls a rank that was stopped a failure, and of one that failed the sentence below says more.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    options = run.parse_args(arguments)  # type: ignore[no-untyped-call]
    try:
        if options.master_addr == _LOOPBACK and options.node_rank == 0:
            _meet_on_loopback_only(options.master_port)
        run.run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        return _exit_code(error.failures)
    except (RuntimeError, OSError) as error:  # torch's DistError is a RuntimeError
        place = f"{options.master_addr}:{options.master_port}"
        Failure(f"The {options.nnodes} hosts of the job did not meet at {place}: {sentence(error)}"[:1000]).write()
        return 1
    return 0


def _meet_on_loopback_only(port: int) -> None:
    """Give torchrun's store a listening socket: the one that it makes itself takes connections of every network."""
    from torch.distributed.elastic.rendezvous import static_tcp_rendezvous as rendezvous

    listener = socket.create_server((_LOOPBACK, port))
    store = partial(rendezvous.TCPStore, master_listen_fd=listener.detach())  # type: ignore[attr-defined]
    rendezvous.TCPStore = store  # type: ignore[attr-defined, assignment]


def _exit_code(failures: "Mapping[int, ProcessFailure]") -> int:
    """Return 143 if all ranks stopped, else 1; give the reason of one that could not, because a signal ended it."""
    silent = {
        rank: failure
        for rank, failure in failures.items()
        if failure.exitcode not in (1, STOPPED, -signal.SIGTERM)  # torchrun ends with SIGTERM those that are left
    }
    if silent:
        rank = min(silent, key=lambda rank: silent[rank].timestamp)
        Failure.from_exit(rank_name(rank), silent[rank].exitcode).write()
    return STOPPED if {failure.exitcode for failure in failures.values()} == {STOPPED} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
