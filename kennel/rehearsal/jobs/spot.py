"""Spot instances that are taken away."""

from __future__ import annotations

from collections.abc import Callable

from kennel.rehearsal.jobs.context import Context


class Interruption:
    """Takes the spot instance away once: after the first metric, or as soon as `saved` says that something is kept."""

    def __init__(self, context: Context, spot: bool, saved: Callable[[], bool]) -> None:
        self._context, self._saved = context, saved
        self._armed = spot and context.interruptions > 0
        self._due = False

    def metric(self) -> None:
        self._due = self._armed

    def due(self) -> bool:
        if self._armed and (self._due or self._saved()):
            self._armed = False
            self._context.interruptions -= 1
            return True
        return False
