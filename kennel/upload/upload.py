"""`kennel upload`: a folder of images as tar shards; the manifest is written last, so a broken upload starts nothing.

A shard's bytes depend on its images alone. Shards that arrived before are left alone: a second run goes on where the
first one was broken off.
"""

import dataclasses
import hashlib
import json
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from kennel.aws import aws_errors, client, output
from kennel.console import AsJson, Stage, print_json
from kennel.errors import KennelError
from kennel.upload.folder import Image, Tree, readable, scan_folder, with_hashes
from training.layout import unused

LIMIT = 64 * 2**20  # bytes
_END = tarfile.RECORDSIZE  # the end mark, padded


@dataclass(frozen=True)
class Shard:
    name: str
    images: tuple[Image, ...]

    @property
    def sha256(self) -> str:
        """Return the SHA-256 over its images: known before it is packed, it tells whether the bucket has it."""
        return digest(self.images)

    @property
    def size(self) -> int:
        """Return the sum of the images' own bytes."""
        return sum(image.size for image in self.images)


def digest(images: Sequence[Image]) -> str:
    """Return the SHA-256 over the sorted (name, SHA-256) pairs, in hex."""
    total = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.name):
        total.update(f"{image.name}\0{image.sha256}\n".encode())
    return total.hexdigest()


def plan(images: Sequence[Image], limit: int = LIMIT) -> list[Shard]:
    """Divide `images`, in their order, into shards of at most `limit` bytes; a larger image has a shard to itself."""
    groups: list[list[Image]] = []
    free = 0  # bytes of the last shard
    for image in images:
        if not groups or _packed(image) > free:
            groups.append([])
            free = limit - _END
        groups[-1].append(image)
        free -= _packed(image)
    return [Shard(f"images-{number:05d}.tar", tuple(group)) for number, group in enumerate(groups)]


def pack(shard: Shard, stream: IO[bytes]) -> None:
    """Write the shard's tar to `stream`; raise KennelError if an image changed since it was looked at."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for image in shard.images:
            with readable(image.name):
                file = image.path.open("rb")
            with file:
                about = image.path.stat()
                if (about.st_size, about.st_mtime_ns) != (image.size, image.modified):
                    raise KennelError(f"{image.name} changed while it was uploaded; run the upload again.")
                archive.addfile(_header(image), file)


def _header(image: Image) -> tarfile.TarInfo:
    member = tarfile.TarInfo(image.name)  # time 0, owner 0
    member.size, member.mode = image.size, 0o644
    return member


def _packed(image: Image) -> int:
    """Return the bytes that the image takes in the tar: its header, and its content in whole blocks."""
    blocks = -(-image.size // tarfile.BLOCKSIZE)
    return len(_header(image).tobuf(tarfile.PAX_FORMAT)) + blocks * tarfile.BLOCKSIZE


Progress = Callable[[str, int, int], None]
"""Takes what is going on ("read" or "send"), the bytes done and the bytes in all. Called from several threads."""

_DOING = {"read": "Reading", "send": "Sending"}
_WORKERS = 4
_MARK = "kennel-content"  # S3 user metadata: what a shard was packed from


@dataclass(frozen=True)
class Upload:
    """The data set in the bucket. `new` is False where the same manifest was there before (nothing starts again)."""

    manifest_key: str
    fingerprint: str
    images: int
    bytes: int
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    new: bool = True


def upload_dataset(
    folder: Path,
    *,
    bucket: str,
    s3: Any,
    name: str = "",
    weights: Path | None = None,
    again: bool = False,
    progress: Progress = lambda doing, done, total: None,
) -> Upload:
    """Upload `folder` as data set `name` (default: the folder's); raise KennelError before anything is sent if it can.

    `weights` is a state_dict (.pth) to start from. `again` writes the manifest even if it is there, which starts the
    pipeline once more.
    """
    name = _checked_name(name or _slug(folder.resolve().name))
    tree = scan_folder(folder)
    extra = _check_weights(weights)
    tree = with_hashes(tree, _Counter("read", tree.size, progress))
    fingerprint = digest([*tree.images, *extra])[:16]
    bucket_ = _Bucket(s3, bucket, f"datasets/{name}/{fingerprint}")
    shards = plan(tree.images)
    bucket_.send(shards, extra, progress)
    description = _describe(name, fingerprint, tree, extra)
    bucket_.put("/dataset.json", description)
    parts = [*(shard.name for shard in shards), *(image.name for image in extra), "dataset.json"]
    new = bucket_.publish(parts, again=again)
    key = f"{bucket_.prefix}.manifest"
    return Upload(key, fingerprint, len(tree.images), tree.size, tree.classes, tree.left_out, new)


class _Bucket:
    def __init__(self, s3: Any, name: str, prefix: str) -> None:
        self.s3, self.name, self.prefix = s3, name, prefix

    def send(self, shards: list[Shard], extra: list[Image], progress: Progress) -> None:
        parts: list[Shard | Image] = [*shards, *extra]
        count = _Counter("send", sum(part.size for part in parts), progress)
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            for waited in [pool.submit(self._ensure, part, count) for part in parts]:
                waited.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C what has not begun is not begun

    def put(self, suffix: str, value: Any) -> None:
        body = json.dumps(value, indent=1, ensure_ascii=False).encode()
        with aws_errors():
            self.s3.put_object(Bucket=self.name, Key=self.prefix + suffix, Body=body, ContentType="application/json")

    def publish(self, parts: list[str], *, again: bool) -> bool:
        """Write the manifest unless it is there; say whether it was written."""
        if not again and self._head(f"{self.prefix}.manifest") is not None:
            return False
        self.put(".manifest", [{"prefix": f"s3://{self.name}/{self.prefix}/"}, *parts])
        return True

    def _ensure(self, part: Shard | Image, count: "_Counter") -> None:
        key, content = f"{self.prefix}/{part.name}", part.sha256
        about = self._head(key)
        if about is None or about["Metadata"].get(_MARK) != content:
            with _opened(part) as stream, aws_errors():
                self.s3.upload_fileobj(stream, self.name, key, ExtraArgs={"Metadata": {_MARK: content}})
        count(part.size)

    def _head(self, key: str) -> Any:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        with aws_errors():
            try:
                return self.s3.head_object(Bucket=self.name, Key=key)
            except ClientError as error:
                # Of an object that is not there S3 says 403 to who may not list the bucket; writing it says the rest.
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                    return None
                raise


def _opened(part: Shard | Image) -> IO[bytes]:
    if isinstance(part, Image):
        with readable(part.name):
            return part.path.open("rb")
    try:
        stream = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
        pack(part, stream)
        stream.seek(0)
    except OSError as error:
        raise KennelError(f"No space to pack {part.name} in {tempfile.gettempdir()} ({error.strerror}).") from error
    return stream


class _Counter:
    """Adds up bytes from several threads and passes the sum on."""

    def __init__(self, doing: str, total: int, progress: Progress) -> None:
        self.doing, self.done, self.total, self.progress = doing, 0, total, progress
        self.lock = threading.Lock()

    def __call__(self, more: int) -> None:
        with self.lock:
            self.done += more
            self.progress(self.doing, self.done, self.total)


def _describe(name: str, fingerprint: str, tree: Tree, extra: list[Image]) -> dict[str, Any]:
    return {
        "name": name,
        "fingerprint": fingerprint,
        "images": len(tree.images),
        "bytes": tree.size,
        "classes": list(tree.classes),
        "weights": {"file": extra[0].path.name, "sha256": extra[0].sha256} if extra else None,
    }


def _check_weights(weights: Path | None) -> list[Image]:
    if weights is None:
        return []
    if not weights.is_file():
        raise KennelError(f"{weights} does not exist; --weights wants a torchvision state_dict (.pth).")
    if weights.suffix not in {".pth", ".pt"} or not re.fullmatch(r"[A-Za-z0-9._-]+", weights.name):
        raise KennelError(f"{weights.name} is no name for weights; --weights wants a plain name that ends in .pth.")
    about = weights.stat()
    if about.st_size == 0:
        raise KennelError(f"{weights} is empty; --weights wants a torchvision state_dict (.pth).")
    with readable(str(weights)), weights.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return [Image(weights, f"weights/{weights.name}", about.st_size, about.st_mtime_ns, sha256)]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63] or "data"


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise KennelError(f"{name!r} is no data set name: small letters, digits, dots, dashes, 63 at most.")
    return name


# ---- Command
def upload(
    folder: Annotated[Path, typer.Argument(help="Class folders, or train/valid/test of class folders.")],
    name: Annotated[str, typer.Option(help="Name of the data set.", show_default="the folder's")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Pretrained torchvision state_dict (.pth) to start from.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start the pipeline even if this very data is there.")] = False,
    stage: Stage = "Dev",
    as_json: AsJson = False,
) -> None:
    """Send a folder of images to the data bucket, which starts the pipeline.

    The folder is checked first. An interrupted upload starts nothing; run it again and it goes on where it stopped.

    [bold]Examples[/]

      kennel upload dogs

      kennel upload dogs --name breeds --weights resnet50.pth --stage Prod
    """
    scan_folder(folder)  # what is wrong with the folder is said before AWS is asked for anything
    bucket = output(stage, "Data", "DataBucketName")
    with transfer() as progress:
        sent = upload_dataset(
            folder, bucket=bucket, s3=client("s3"), name=name, weights=weights, again=again, progress=progress
        )
    show_upload(sent, bucket, stage, as_json=as_json)


@contextmanager
def transfer() -> Iterator[Progress]:
    """Yield a progress callback that draws bars on stderr, and nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(_DOING[doing], total=total)
            progress.update(tasks[doing], completed=done)

        yield report


def show_upload(sent: Upload, bucket: str, stage: str, *, as_json: bool) -> None:
    if as_json:
        return print_json({**dataclasses.asdict(sent), "bucket": bucket})
    console = Console(highlight=False)
    console.print(f"{sent.images:,} images of {len(sent.classes)} classes ({sent.bytes / 1e6:,.1f} MB)", markup=False)
    if sent.left_out:
        console.print(f"Not used: {unused(sent.left_out)} (such as {_few(sent.left_out)})", markup=False)
    console.print(f"s3://{bucket}/{sent.manifest_key}", markup=False, soft_wrap=True)
    started = f"The pipeline starts now: `kennel status --stage {stage}` follows it."
    console.print(
        started if sent.new else "This data was there already, so nothing starts; `--again` starts the pipeline."
    )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
