"""Whether a worker still moves, as the kernel sees it: a rank that hangs would keep all others waiting."""

from pathlib import Path

BEATS = 15  # looks without a movement until a worker counts as stuck
INTERVAL = 1.0  # seconds between two looks


class Pulse:
    """Looks at one process. It counts looks and not seconds: a machine that slept has not looked."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/stat")
        self._spent, self._still = "", 0

    def stuck(self, *, begun: bool) -> bool:
        """Look once more. Stuck is what was stopped (SIGSTOP) for `BEATS` looks and, before it has begun to work with
        the others, what only slept: it used no CPU and waited for no disk. Later a worker may well wait for others.
        """
        try:
            # The name, in brackets, may hold anything; behind it are the state, and as 12th and 13th the CPU ticks.
            parts = self._file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # ended, or no Linux
            return False
        state, spent = parts[0], " ".join(parts[11:13])
        idle = state == "T" or (state == "S" and not begun)
        self._still = self._still + 1 if idle and spent == self._spent else 0
        self._spent = spent
        return self._still >= BEATS
