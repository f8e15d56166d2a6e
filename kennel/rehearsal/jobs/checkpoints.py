"""A training job's checkpoints in S3, and the spot interruption that they survive."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import path_on_machine
from kennel.rehearsal.jobs.store import Store


class Checkpoints:
    """The folder of checkpoints that all hosts of a job share with the S3Uri of its CheckpointConfig.

    Other jobs may write to the same S3Uri meanwhile: objects that this job has not downloaded stay as they are.
    """

    def __init__(self, store: Store, config: Mapping[str, str], key_id: str) -> None:
        self._store, self._uri, self._key = store, config["S3Uri"], key_id
        self._path = config.get("LocalPath", "/opt/ml/checkpoints")
        self._downloaded: set[str] = set()

    def download(self, root: Path) -> None:
        """Copy what is in S3 into the folder of one host."""
        folder = path_on_machine(root, self._path)
        self._store.download_if_any(self._uri, folder)
        self._downloaded |= set(_files(folder))

    def has_new(self, roots: Sequence[Path]) -> bool:
        """Return whether a host has written a whole file since the download."""
        found = (name for root in roots for name in _files(path_on_machine(root, self._path)))
        return any(name not in self._downloaded and not name.endswith(".partial") for name in found)

    def upload(self, roots: Sequence[Path]) -> None:
        """Copy all files to S3, and delete there those that were downloaded and are gone from every host."""
        folders = [path_on_machine(root, self._path) for root in roots]
        for folder in folders:
            self._store.upload(folder, self._uri, self._key)
        remaining = {name for folder in folders for name in _files(folder)}
        for name in sorted(self._downloaded - remaining):
            self._store.delete(f"{self._uri.rstrip('/')}/{name}")


class SpotInterruption:
    """Takes the spot instance away once: after the first metric, or as soon as `has_checkpoint` returns true."""

    def __init__(self, context: Context, spot: bool, has_checkpoint: Callable[[], bool]) -> None:
        self._context, self._has_checkpoint = context, has_checkpoint
        self._armed = spot and context.interruptions > 0
        self._metric_seen = False

    def metric(self) -> None:
        self._metric_seen = True

    def due(self) -> bool:
        """Return true once, when the instance is to be taken away."""
        if self._armed and (self._metric_seen or self._has_checkpoint()):
            self._armed = False
            self._context.interruptions -= 1
            return True
        return False


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
