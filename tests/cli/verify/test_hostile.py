"""Archives that are broken or made to do harm end in one sentence."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kennel.errors import KennelError
from kennel.verify import archive
from kennel.verify.command import check_artifact
from tests.cli.verify.artifacts import model, no_client, pack


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], None]:
    def run(packed: bytes) -> None:
        file = tmp_path / "model.tar.gz"
        file.write_bytes(packed)
        check_artifact(str(file), client=no_client)

    return run


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return gzip.compress(member.tobuf(tarfile.PAX_FORMAT) + bytes(10_240), mtime=0)


def _sparse() -> bytes:
    member = tarfile.TarInfo("weights.pt")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "1000"}
    return gzip.compress(member.tobuf(tarfile.PAX_FORMAT) + bytes(10_240), mtime=0)


def _damaged() -> bytes:
    """Whole at both ends, nonsense between."""
    packed = pack({"weights.pt": " ".join(map(str, range(100_000))).encode()})
    middle = len(packed) // 2
    return packed[:middle] + b"\xff" * 200 + packed[middle + 200 :]


@pytest.mark.parametrize(
    "packed",
    [
        _sparse(),
        _entry("../evil"),
        _entry("/etc/passwd"),
        _entry("a/model.json"),
        _entry(".."),
        _entry("a\nb"),
        _entry("a\udcff"),
        _entry("model.json", tarfile.SYMTYPE, "/etc/passwd"),
        _entry("model.json", tarfile.LNKTYPE, "model.xml"),
        _entry("model.json", tarfile.FIFOTYPE),
        _entry("folder", tarfile.DIRTYPE),
        pack({f"f{number}": b"" for number in range(100)}),
    ],
    ids=lambda packed: "",  # the bytes hold the time of packing, which differs between xdist's workers
)
def test_a_hostile_archive_is_refused_and_nothing_is_written(
    check: Callable[[bytes], None], tmp_path: Path, packed: bytes
) -> None:
    with pytest.raises(KennelError, match="The archive is refused"):
        check(packed)
    assert [file.name for file in tmp_path.rglob("*")] == ["model.tar.gz"]


def test_a_name_that_stands_twice_is_refused(check: Callable[[bytes], None]) -> None:
    one = tarfile.TarInfo("model.json").tobuf()
    with pytest.raises(KennelError, match=r"holds model\.json twice"):
        check(gzip.compress(one + one + bytes(1024)))


def test_a_bomb_is_refused(check: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 20 << 20)
    with pytest.raises(KennelError, match="unpacks to more than"):
        check(pack({"weights.pt": bytes(30 << 20)}))


def test_a_json_file_too_large_for_memory_is_refused(check: Callable[[bytes], None]) -> None:
    member = tarfile.TarInfo("model.json")
    member.size = 1 << 40
    with pytest.raises(KennelError, match="larger than 32 MiB"):
        check(gzip.compress(member.tobuf(tarfile.GNU_FORMAT)))


def test_a_header_as_large_as_a_file_is_refused(check: Callable[[bytes], None]) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 33
    with pytest.raises(KennelError, match="headers is as large as a file"):
        check(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))


@pytest.mark.parametrize(
    "packed",
    [b"", b"no archive", b"\x1f\x8b\x08 cut", gzip.compress(b"x" * 5000, mtime=0), _damaged(), pack(model())[:-2000]],
)
def test_a_broken_archive_is_one_sentence(check: Callable[[bytes], None], packed: bytes) -> None:
    with pytest.raises(KennelError, match="no whole model"):
        check(packed)


def test_a_chain_of_headers_is_one_sentence(check: Callable[[bytes], None]) -> None:
    member = tarfile.TarInfo("x")
    member.type = tarfile.XHDTYPE
    with pytest.raises(KennelError, match="no whole model"):
        check(gzip.compress(member.tobuf() * 5000))
