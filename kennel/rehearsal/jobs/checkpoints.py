"""The folder of checkpoints that a training job shares with S3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kennel.rehearsal.jobs.contract import inside
from kennel.rehearsal.jobs.store import Store


class Checkpoints:
    """What lies under `config`'s S3Uri is brought to each host; what they add is kept, what they delete goes.

    Other jobs may write to the same address meanwhile: what this one has never seen it leaves alone.
    """

    def __init__(self, store: Store, config: Mapping[str, str], key_id: str) -> None:
        self._store, self._uri, self._key = store, config["S3Uri"], key_id
        self._path = config.get("LocalPath", "/opt/ml/checkpoints")
        self._brought: set[str] = set()

    def bring(self, root: Path) -> None:
        folder = inside(root, self._path)
        self._store.pull(self._uri, folder)
        self._brought |= set(_files(folder))

    def grown(self, roots: Sequence[Path]) -> bool:
        """Whether a host has written a whole file since."""
        found = (name for root in roots for name in _files(inside(root, self._path)))
        return any(name not in self._brought and not name.endswith(".partial") for name in found)

    def keep(self, roots: Sequence[Path]) -> None:
        folders = [inside(root, self._path) for root in roots]
        for folder in folders:
            self._store.upload(folder, self._uri, self._key)
        left = {name for folder in folders for name in _files(folder)}
        for name in sorted(self._brought - left):
            self._store.delete(f"{self._uri.rstrip('/')}/{name}")


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
