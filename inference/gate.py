"""Bounded room for work."""

from types import TracebackType

from inference.errors import Refused


class Gate:
    """Lets so many in at a time and refuses the rest at once: a caller who is told can go elsewhere.

    For one event loop; not for threads.
    """

    def __init__(self, places: int) -> None:
        self._free = places

    def __enter__(self) -> None:
        if self._free == 0:
            raise Refused(503, "busy", "The server has too much to do; try again.", {"Retry-After": "1"})
        self._free -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free += 1
