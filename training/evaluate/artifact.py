"""Unpacks a model artifact and holds it to its passport."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from training.errors import TrainingError

FILES = ("model.json", "model.xml", "model.bin")
INT8 = ("model-int8.xml", "model-int8.bin")
_WANTED = (*FILES, *INT8, "passport.json")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Passport:
    """What evaluation.json says of the passport; all None for an artifact from before there were any."""

    sha256: str | None = None
    data_fingerprint: str | None = None
    code_sha256: str | None = None
    image: str | None = None


def unpack(archive: Path, folder: Path) -> Passport:
    """Write the files of model.tar.gz that evaluation needs into `folder`.

    Raises TrainingError for an archive that is missing, broken or not what its passport says.
    """
    try:
        hashes = _extract(archive, folder)
    except FileNotFoundError:
        raise TrainingError(f"{archive} is missing; the input `model` must be a training job's artifact.") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainingError(f"{archive} cannot be unpacked ({error}).") from None
    if missing := [name for name in FILES if name not in hashes]:
        raise TrainingError(f"{archive} holds no {', '.join(missing)}; it is no model of this training program.")
    return _inspect(folder / "passport.json", hashes) if "passport.json" in hashes else Passport()


def _extract(archive: Path, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file; what evaluation does not need is only looked at."""
    hashes = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            source = tar.extractfile(member) if member.isfile() else None
            if source is not None:
                target = folder / name if name in _WANTED else Path("/dev/null")
                with source, target.open("wb") as sink:
                    hashes[name] = _copy(source, sink)
    return hashes


def _copy(source: IO[bytes], sink: IO[bytes]) -> str:
    whole = hashlib.sha256()
    while data := source.read(_CHUNK):
        whole.update(data)
        sink.write(data)
    return whole.hexdigest()


def _inspect(file: Path, hashes: dict[str, str]) -> Passport:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        meant = dict(content["files"])
        passport = Passport(
            hashes["passport.json"], content["data"]["fingerprint"], content["code"]["sha256"], content["image"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"passport.json of the model is broken ({error!r}); train it again.") from None
    known = {*FILES, *(name for name in INT8 if name in hashes)}
    for name in (*FILES, *sorted((meant.keys() | known) - set(FILES))):
        if hashes.get(name) != meant.get(name):
            raise TrainingError(
                f"{name} is not the file that the model's passport names: the artifact was changed; train it again."
            )
    return passport
