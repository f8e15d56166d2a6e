"""Uploads into a bucket on loopback."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.errors import KennelError
from kennel.upload.folder import scan_folder
from kennel.upload.upload import LIMIT, Shard, Upload, pack, plan, upload_dataset
from tests.cli.trees import tree
from tests.contracts import validate

NAMES = ("dog/1.png", "dog/2.png", "chat été/1.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path / "Pets 2", *NAMES)


def keys(s3: Any, bucket: str) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def read(s3: Any, bucket: str, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_the_bucket_holds_what_the_pipeline_expects(s3: Any, bucket: str, folder: Path) -> None:
    sent = upload_dataset(folder, bucket=bucket, s3=s3)
    prefix = f"datasets/pets-2/{sent.fingerprint}"
    assert sent.manifest_key == f"{prefix}.manifest"
    assert keys(s3, bucket) == [f"{prefix}.manifest", f"{prefix}/dataset.json", f"{prefix}/images-00000.tar"]
    manifest = json.loads(read(s3, bucket, sent.manifest_key))
    assert manifest == [{"prefix": f"s3://{bucket}/{prefix}/"}, "images-00000.tar", "dataset.json"]
    assert json.loads(read(s3, bucket, f"{prefix}/dataset.json")) == {
        "name": "pets-2",
        "fingerprint": sent.fingerprint,
        "images": 3,
        "bytes": sum((folder / name).stat().st_size for name in NAMES),
        "classes": ["chat été", "dog"],
        "weights": None,
    }


def test_the_shard_holds_each_file_unchanged(s3: Any, bucket: str, folder: Path) -> None:
    sent = upload_dataset(folder, bucket=bucket, s3=s3)
    packed = read(s3, bucket, f"datasets/pets-2/{sent.fingerprint}/images-00000.tar")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        held = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert held == {name: (folder / name).read_bytes() for name in NAMES}


def test_the_same_files_elsewhere_and_later_have_the_same_key_and_bytes(
    s3: Any, bucket: str, folder: Path, tmp_path: Path
) -> None:
    other = tree(tmp_path / "other", *NAMES)
    (other / "dog" / "1.png").touch()
    first = upload_dataset(folder, bucket=bucket, s3=s3, name="x")
    shard = f"datasets/x/{first.fingerprint}/images-00000.tar"
    before = read(s3, bucket, shard)
    s3.delete_object(Bucket=bucket, Key=shard)
    assert upload_dataset(other, bucket=bucket, s3=s3, name="x").fingerprint == first.fingerprint
    assert read(s3, bucket, shard) == before


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_another_content_name_or_number_of_files_is_another_data_set(
    s3: Any, bucket: str, folder: Path, change: str
) -> None:
    before = upload_dataset(folder, bucket=bucket, s3=s3).fingerprint
    image = folder / "dog" / "1.png"
    if change == "content":
        image.write_bytes(image.read_bytes() + b"x")
    elif change == "name":
        image.rename(image.with_name("10.png"))  # keeps its place in the order
    else:
        (folder / "dog" / "3.png").write_bytes(image.read_bytes())
    assert upload_dataset(folder, bucket=bucket, s3=s3).fingerprint != before


def test_the_same_data_again_starts_nothing_unless_asked(s3: Any, bucket: str, folder: Path) -> None:
    def put(**more: Any) -> tuple[Upload, Any]:
        sent = upload_dataset(folder, bucket=bucket, s3=s3, **more)
        return sent, s3.head_object(Bucket=bucket, Key=sent.manifest_key)

    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    (first, written), (second, kept), (third, anew) = put(), put(), put(again=True)
    assert (first.new, second.new, third.new) == (True, False, True)
    assert kept["VersionId"] == written["VersionId"]
    assert anew["VersionId"] != written["VersionId"]


def test_whoever_may_write_but_not_list_uploads_all_the_same(s3: Any, bucket: str, folder: Path) -> None:
    class Unlisted:
        """Of an object that is not there S3 says 403 to who has no s3:ListBucket."""

        def __getattr__(self, name: str) -> Any:
            return getattr(s3, name)

        def head_object(self, **_: str) -> Any:
            answer = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "HeadObject")

    sent = upload_dataset(folder, bucket=bucket, s3=Unlisted())
    assert sent.new
    assert sent.manifest_key in keys(s3, bucket)


class Breaking:
    """An S3 client whose line goes down at the given shard; it remembers what it was asked to send."""

    def __init__(self, s3: Any, at: str) -> None:
        self.s3, self.at, self.sent = s3, at, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.s3, name)

    def upload_fileobj(self, stream: Any, bucket: str, key: str, **more: Any) -> None:
        if self.at and key.endswith(self.at):
            raise ConnectionResetError("the line is down")
        self.sent.append(key.rsplit("/", 1)[-1])
        self.s3.upload_fileobj(stream, bucket, key, **more)


def test_an_interrupted_upload_writes_no_manifest_and_the_next_one_goes_on(
    s3: Any, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kennel.upload.upload.plan", lambda images: plan(images, 11_500))  # an image a shard
    with pytest.raises(ConnectionResetError):
        upload_dataset(folder, bucket=bucket, s3=Breaking(s3, "images-00002.tar"))
    assert not [key for key in keys(s3, bucket) if key.endswith((".manifest", ".json"))]
    resumed = Breaking(s3, "")
    sent = upload_dataset(folder, bucket=bucket, s3=resumed)
    assert resumed.sent == ["images-00002.tar"]
    assert sent.new


def test_a_shard_of_another_content_under_the_same_key_is_sent_again(s3: Any, bucket: str, folder: Path) -> None:
    sent = upload_dataset(folder, bucket=bucket, s3=s3)
    shard = f"datasets/pets-2/{sent.fingerprint}/images-00000.tar"
    before = read(s3, bucket, shard)
    s3.put_object(Bucket=bucket, Key=shard, Body=b"rubbish")
    upload_dataset(folder, bucket=bucket, s3=s3)
    assert read(s3, bucket, shard) == before


def test_weights_travel_with_the_data_and_are_part_of_its_key(
    s3: Any, bucket: str, folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "resnet18.pth"
    weights.write_bytes(b"state")
    plain, sent = (upload_dataset(folder, bucket=bucket, s3=s3, weights=given) for given in (None, weights))
    prefix = f"datasets/pets-2/{sent.fingerprint}"
    assert plain.fingerprint != sent.fingerprint
    assert read(s3, bucket, f"{prefix}/weights/resnet18.pth") == b"state"
    description = json.loads(read(s3, bucket, f"{prefix}/dataset.json"))
    validate("dataset", description)
    assert description["weights"]["file"] == "resnet18.pth"
    assert "weights/resnet18.pth" in json.loads(read(s3, bucket, sent.manifest_key))


@pytest.mark.parametrize(("name", "content"), [("w.pth", b""), ("w.zip", b"x"), ("w é.pth", b"x")])
def test_weights_that_cannot_be_any_are_refused_before_anything_is_sent(
    s3: Any, bucket: str, folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KennelError, match="weights"):
        upload_dataset(folder, bucket=bucket, s3=s3, weights=tmp_path / name)
    assert keys(s3, bucket) == []


@pytest.mark.parametrize("name", ["a/b", "..", "Ä", "x" * 64])
def test_a_name_that_is_no_key_is_refused(s3: Any, bucket: str, folder: Path, name: str) -> None:
    with pytest.raises(KennelError, match="no data set name"):
        upload_dataset(folder, bucket=bucket, s3=s3, name=name)


def test_progress_ends_at_the_whole_of_both_phases(s3: Any, bucket: str, folder: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    sent = upload_dataset(
        folder, bucket=bucket, s3=s3, progress=lambda doing, done, total: seen.update({doing: (done, total)})
    )
    assert seen == {"read": (sent.bytes, sent.bytes), "send": (sent.bytes, sent.bytes)}


def test_shards_stay_below_the_limit_with_the_longest_of_names(tmp_path: Path) -> None:
    names = [f"é{'x' * 200}/{'ü' * 100}{number}.png" for number in range(40)]
    images = scan_folder(tree(tmp_path, *names, "b/1.png")).images
    shards = plan(images, 40_000)
    assert len(shards) > 1
    for shard in shards:
        packed = io.BytesIO()
        pack(shard, packed)
        assert packed.tell() <= 40_000
    assert [image for shard in shards for image in shard.images] == list(images)


def test_an_image_larger_than_a_shard_has_one_to_itself(tmp_path: Path) -> None:
    images = scan_folder(tree(tmp_path, "a/1.png", "a/2.png", "b/1.png")).images
    assert [len(shard.images) for shard in plan(images, 1)] == [1, 1, 1]
    assert [len(shard.images) for shard in plan(images)] == [3]
    assert LIMIT == 64 * 1024 * 1024


def test_a_file_that_changes_under_way_is_named(tmp_path: Path) -> None:
    images = scan_folder(tree(tmp_path, "a/1.png", "b/1.png")).images
    (tmp_path / "a" / "1.png").write_bytes(b"longer than before, as it seems" * 9)
    with pytest.raises(KennelError, match=r"a/1\.png changed while"):
        pack(Shard("x.tar", images), io.BytesIO())


def test_a_bucket_that_does_not_exist_is_said_in_a_sentence(s3: Any, aws: str, folder: Path) -> None:
    with pytest.raises(KennelError, match=r"AWS refused .*bucket"):
        upload_dataset(folder, bucket="nobody-has-this-one", s3=s3)
