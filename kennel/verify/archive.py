"""A reader of model.tar.gz files that may be hostile: all that is read has a bound; only `unpack` writes files."""

import gzip
import hashlib
import re
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from kennel.errors import KennelError

LARGEST = 8 << 30  # bytes unpacked
_MEMBERS = 64
_KEPT = 32 << 20  # bytes of a JSON file, which is read into memory
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CHUNK = 1 << 20
_HEADER = 4 << 20  # bytes that tarfile may ask for in one piece: its extended headers are read whole


@dataclass(frozen=True)
class Member:
    """`content` is the file itself for `.json`, else empty."""

    sha256: str
    content: bytes


class _Bounded:
    """A file for tarfile that refuses to be read beyond the bounds."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise KennelError("The archive is refused: one of its headers is as large as a file.")
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, place: int) -> int:
        self._check(place)
        return self._stream.seek(place)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, place: int) -> None:
        if place > LARGEST:
            raise KennelError(f"The archive is refused: it unpacks to more than {LARGEST >> 30} GiB.")


def read_members(file: IO[bytes], name: str) -> dict[str, Member]:
    """Return the files of the flat archive `file` by their names; raise KennelError for anything but that."""
    found: dict[str, Member] = {}
    try:
        with gzip.GzipFile(fileobj=file) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:  # type: ignore[call-overload]
            for count, member in enumerate(tar):
                if count == _MEMBERS:
                    raise KennelError(f"The archive is refused: it holds more than {_MEMBERS} entries.")
                if member.isdir() and member.name == ".":
                    continue
                plain = _plain_name(member, found)
                found[plain] = _read(tar, member, keep=plain.endswith(".json"))
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError) as error:
        raise KennelError(f"{name} is no whole model.tar.gz ({error}).") from None
    return found


def unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the plain files of `tar` below `folder`; raise tarfile.TarError for what is none or lies elsewhere.

    By hand: `extractall(filter="data")` came with Python 3.11.4, and Debian 12 has 3.11.2.
    """
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is no plain file inside the archive")
        content = tar.extractfile(member)
        if content is not None:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _plain_name(member: tarfile.TarInfo, found: dict[str, Member]) -> str:
    name = member.name.removeprefix("./")
    if not _NAME.fullmatch(name):
        raise KennelError(f"The archive is refused: {member.name[:100]!a} is no plain file name.")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise KennelError(f"The archive is refused: {name} is no plain file.")
    if name in found:
        raise KennelError(f"The archive is refused: it holds {name} twice, and readers differ in which counts.")
    if name.endswith(".json") and member.size > _KEPT:
        raise KennelError(f"The archive is refused: {name} is larger than {_KEPT >> 20} MiB.")
    return name


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, *, keep: bool) -> Member:
    whole, parts = hashlib.sha256(), []
    source = tar.extractfile(member)
    assert source is not None  # a plain file
    with source:
        while data := source.read(_CHUNK):
            whole.update(data)
            parts += [data] if keep else []
    return Member(whole.hexdigest(), b"".join(parts))
