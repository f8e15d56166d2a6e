"""`kennel invoke`: asks the deployed function for the classes of a picture, which is reduced where it is too large."""

import base64
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kennel.aws import aws_errors, client, output
from kennel.console import AsJson, Stage, print_json
from kennel.errors import KennelError

PAYLOAD_LIMIT = 6 * 2**20  # bytes of a synchronous Lambda request
_BAR = 24  # characters of a probability of 1
_CONVERTED = (b"II*\0", b"MM\0*", b"BM")  # TIFF and BMP, which can be trained on and are not served
_ENVELOPE = 1024  # for the JSON around the picture
FILE_LIMIT = (PAYLOAD_LIMIT - _ENVELOPE) * 3 // 4  # base64 makes four bytes of three


class Refused(KennelError):
    """An error that the function itself answered with."""

    def __init__(self, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{message.rstrip('.')} ({code}{', request ' + request_id if request_id else ''}).")
        self.code = code


def payload(picture: str, top_k: int | None = None) -> dict[str, Any]:
    """Return the event for a URL, an s3:// address or a file; raise KennelError for a file that cannot be sent.

    A picture too large for a request is sent reduced, and stderr says so; a TIFF or BMP is sent as a JPEG.
    """
    more = {} if top_k is None else {"top_k": top_k}
    if picture.startswith(("https://", "http://")):
        return {"url": picture, **more}
    if picture.startswith("s3://"):
        return {"s3_uri": picture, **more}
    return {"image": base64.b64encode(sendable(Path(picture))).decode("ascii"), **more}


def classify(client: Any, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Invoke `function` (an alias's ARN) and return its answer.

    Raise Refused for an error of the function's own, KennelError where it broke or could not be called.
    """
    body = _parsed(call(client, function, payload))
    if "error" in body:
        error = body["error"]
        raise Refused(str(error.get("code")), str(error.get("message")), str(body.get("request_id", "")))
    if not isinstance(body.get("predictions"), list) or not body["predictions"]:
        raise KennelError(f"The function's answer has no predictions: {json.dumps(body)[:200]}.")
    return body


def call(client: Any, function: str, payload: Mapping[str, Any]) -> bytes:
    """Invoke `function` and return its answer as it came, or raise KennelError where it broke or was not called."""
    with aws_errors():
        answer = client.invoke(FunctionName=function, Payload=json.dumps(payload).encode())
    raw: bytes = answer["Payload"].read()
    if answer.get("FunctionError"):
        reason = _parsed(raw).get("errorMessage", "no reason given")
        raise KennelError(f"The function broke: {reason}; its log says more.")
    return raw


def sendable(path: Path) -> bytes:
    """Return the file's bytes, or a JPEG of it where these are too many or of a kind that is not served."""
    if not path.is_file():
        raise KennelError(f"{path} {'is no file' if path.exists() else 'does not exist'}; give an image file or a URL.")
    size = path.stat().st_size
    if size == 0:
        raise KennelError(f"{path} is empty.")
    try:
        body = path.read_bytes() if size <= FILE_LIMIT else _smaller(path, size)
        return (reduced(body, FILE_LIMIT) or body) if body.startswith(_CONVERTED) else body
    except OSError as error:
        raise KennelError(f"{path} cannot be read ({error.strerror}).") from error


def _smaller(path: Path, size: int) -> bytes:
    holds = f"{path} has {size / 1e6:.1f} MB; a request to Lambda holds {FILE_LIMIT / 1e6:.1f} MB"
    jpeg = reduced(path.read_bytes(), FILE_LIMIT)
    if jpeg is None:
        raise KennelError(
            f"{holds}, and it is no picture that could be reduced here: make it smaller, "
            "or copy it to photos/ in the data bucket and pass its s3:// address."
        )
    from PIL import Image

    width, height = Image.open(io.BytesIO(jpeg)).size
    print(f"{holds}: it is sent as a JPEG of {width} x {height} pixels.", file=sys.stderr)
    return jpeg


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise KennelError(f"The function answered something else than a JSON object: {raw[:100]!r}.")
    return body


def invoke(
    picture: Annotated[
        str | None, typer.Argument(metavar="IMAGE|URL|S3-URI", help="File, https:// or s3:// address.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many classes to name.", show_default="5")
    ] = None,
    stage: Stage = "Dev",
    as_json: AsJson = False,
    page: Annotated[bool, typer.Option("--page", help="Serve a page on loopback to drop photos on.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page.", show_default="any free one")] = 0,
) -> None:
    """Ask the deployed function what is on a picture.

    [bold]Examples[/]

      kennel invoke rex.jpg

      kennel invoke https://example.org/rex.jpg --top-k 3

      kennel invoke s3://BUCKET/photos/rex.jpg --stage Prod --json

      kennel invoke --page
    """
    if (picture is None) is not page:
        raise typer.BadParameter("Give either a picture (IMAGE, URL or S3-URI) or --page.")
    if picture is None:
        return _serve(stage, port)

    event = payload(picture, top_k)
    function = output(stage, "Classify", "FunctionAliasArn")
    show_answer(classify(client("lambda"), function, event), as_json=as_json)


def _serve(stage: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""

    function = output(stage, "Classify", "FunctionAliasArn")
    # Nobody plays the HTTP API where AWS is an embedded one.
    api_url = "" if "AWS_ENDPOINT_URL" in os.environ else output(stage, "Classify", "ApiUrl")
    who = f"It asks the function of {stage} with your credentials. Ctrl-C ends it."
    from kennel.page.server import serve_until_stopped  # it imports this module
    from kennel.page.snippets import Target

    target = Target(stage, function, client("lambda"), api_url)
    serve_until_stopped(target, port, lambda address: typer.echo(f"Drop a photo on {address}\n{who}"))


def show_answer(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        return print_json(answer)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    for one in answer["predictions"]:
        share = float(one["probability"])
        table.add_row(escape(str(one["label"])), f"{share:.1%}", f"[cyan]{'█' * round(share * _BAR)}[/]")
    console = Console(highlight=False)
    if verdict_of(answer) == "none_of_these":
        console.print(_none_of_these(answer["predictions"][0], answer["known"]), markup=False, style="bold")
    elif verdict_of(answer) == "not_sure":
        console.print(_not_sure(answer["predictions"][0], answer["threshold"]), markup=False, style="bold")
    console.print(table)
    console.print(f"model {answer.get('model') or 'unnamed'}", markup=False, style="dim", soft_wrap=True)


def verdict_of(answer: Mapping[str, Any]) -> str:
    """Return class, none_of_these or not_sure; a function of an older release says only whether there is a label."""
    return str(answer.get("verdict") or ("not_sure" if answer.get("label", "") is None else "class"))


def _none_of_these(best: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    mine, least = _apart(known["score"], known["threshold"])
    return f"None of these (likeness {mine}, below {least}; best guess {best['label']})"


def _not_sure(best: Mapping[str, Any], threshold: float) -> str:
    mine, least = _apart(best["probability"], threshold)
    return f"Not sure (best guess {best['label']} {mine}, below {least})"


def _apart(one: float, other: float) -> tuple[str, str]:
    """Return both in percent, with as many digits as it takes to see that one is below the other."""
    shown = ((f"{100 * one:.{digits}f} %", f"{100 * other:.{digits}f} %") for digits in range(15))
    return next((pair for pair in shown if pair[0] != pair[1]), (f"{one}", f"{other}"))


_SHORTER = 1024  # pixels of the shorter side: four times what models usually look at
_LONGEST = 65_500  # what a JPEG can have
_STEP = 0.7  # from one try to the next
_QUALITY = 92


def reduced(picture: bytes, max_bytes: int) -> bytes | None:
    """Return the whole picture upright as a JPEG of at most `max_bytes`, or None for bytes that are no picture.

    What the inference server would see of colours stays: alpha is dropped, of 16-bit grey the upper 8 bits count.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the caller's own file
            with Image.open(io.BytesIO(picture)) as opened:
                whole = upright(opened)
    except Exception:  # Pillow's decoders raise nearly anything for broken bytes; the answer is the same
        return None
    scale = min(1.0, _SHORTER / min(whole.size), _LONGEST / max(whole.size))
    while len(made := _jpeg(whole, scale)) > max_bytes:
        scale *= _STEP
    return made


def upright(opened: Any) -> Any:
    """Return the picture as inference/images.py decodes it, of EXIF's data by the orientation alone."""
    from PIL import ImageOps

    opened.load()
    with suppress(Exception):  # odd data lead Pillow into nearly anything
        opened.getexif()  # Pillow keeps what it has read; without the originals it does not write all of them anew
    for name in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):
        opened.info.pop(name, None)
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        upright = upright.point(lambda value: value * (1 / 256)).convert("L")
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _jpeg(whole: Any, scale: float) -> bytes:
    size = tuple(max(1, round(side * scale)) for side in whole.size)
    packed = io.BytesIO()
    whole.resize(size, reducing_gap=3).save(packed, "JPEG", quality=_QUALITY)
    return packed.getvalue()
