"""Finds the files of a data set, plain or in tar shards. Nothing is ever extracted, so no name can harm."""

import os
import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from training.errors import TrainingError

_SHUT = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar")
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # would break a line of the log, or cannot be written as UTF-8


@dataclass(frozen=True)
class Source:
    """Where an image's bytes lie; `name` is its path in the class-folder tree."""

    file: Path
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class Contents:
    """`folders` are paths as the names of files are; `left_out` holds names and reasons."""

    files: list[Source] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def contents(folder: Path) -> Contents:
    """Return what lies below `folder`, in the order of names; hidden files count for nothing.

    Raises TrainingError for what would lose images unseen: an archive that is compressed, broken or inside another
    one, a folder that cannot be read.
    """
    found = Contents()
    for root, folders, files in os.walk(folder, onerror=_refuse):  # does not follow links to folders
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in folders:
            _look(Path(root, name), folder, found)
        for name in files:
            if not _hidden(name):
                _look(Path(root, name), folder, found)
    found.files.sort(key=lambda source: source.name)
    return found


def _refuse(error: OSError) -> NoReturn:
    raise TrainingError(f"{printable(str(error.filename))} cannot be read: {error.strerror}.") from error


def _look(path: Path, folder: Path, found: Contents) -> None:
    name = printable(path.relative_to(folder).as_posix())
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        found.left_out.append((name, "is a link or a special file"))
    elif path.is_dir():
        found.folders.append(name)
    elif name.lower().endswith(_SHUT):
        raise TrainingError(f"{name} is compressed; pack the images as an uncompressed .tar.")
    elif name.lower().endswith(".tar"):
        _look_into(path, name, found)
    else:
        found.files.append(Source(path, 0, path.stat().st_size, name))


def _look_into(path: Path, shard: str, found: Contents) -> None:
    try:
        with path.open("rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
                for member in archive:
                    _look_at_member(member, path, shard, found)
                    archive.members.clear()  # type: ignore[attr-defined]  # a million of them are a gigabyte
            _require_end(stream, archive.offset)
    # Beside its own errors tarfile lets some of int(), bytes.decode() and struct through for hostile headers.
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise TrainingError(f"{shard} is no whole tar archive ({error}); upload the data set again.") from None


def _require_end(stream: BinaryIO, offset: int) -> None:
    """tarfile takes the first block that is no header for the end, whether anything was lost there or not."""
    stream.seek(offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")
    while end:
        if end.strip(b"\0"):
            raise tarfile.ReadError(f"what follows byte {offset} is damaged or another archive")
        end = stream.read(2**20)


def _look_at_member(member: tarfile.TarInfo, path: Path, shard: str, found: Contents) -> None:
    name = printable(str(PurePosixPath(member.name)))  # without ./, // and a slash at the end
    parts = PurePosixPath(name).parts
    if any(_hidden(part) for part in parts if part != ".."):
        return
    if name.startswith("/") or ".." in parts:
        found.left_out.append((name, "has a path that leads out of the archive"))
    elif member.isdir():
        found.folders.append(name)
    elif not member.isfile() or member.issparse():
        found.left_out.append((name, "is a link or a special file"))
    elif name.lower().endswith((".tar", *_SHUT)):
        raise TrainingError(f"{shard} holds another archive, {name}; pack the images themselves.")
    else:
        found.files.append(Source(path, member.offset_data, member.size, name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def printable(name: str) -> str:
    """Return `name` with escapes (`h\\xe9`) for what is not UTF-8 and for control characters; other names unchanged."""
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        one.encode("unicode_escape").decode("ascii") if unicodedata.category(one) in _CONTROL else one for one in text
    )
