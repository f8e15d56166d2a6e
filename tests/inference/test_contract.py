"""The contract's page names every error code of the code, and a picture's way through the server is short."""

import ast
import asyncio
import re
import sys
import threading
from pathlib import Path
from typing import Any

import inference
from inference import app, artifact, classifier
from inference.runtime_selection import Selection
from inference.telemetry import Metrics
from tests.contracts import schema
from tests.inference.tiny import picture

ROOT = Path(__file__).parents[2]
SOURCES = Path(inference.__file__).parent


def raised() -> dict[str, set[int]]:
    """code -> statuses of each `Refused(status, code, ...)` in the sources."""
    found: dict[str, set[int]] = {"not_found": {404}, "method_not_allowed": {405}}  # Starlette's own
    for file in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused":
                status, code = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    found.setdefault(str(code.value), set()).add(int(str(status.value)))
    return found


def test_the_table_of_errors_is_what_the_server_raises() -> None:
    page = (ROOT / "docs" / "contracts" / "server-api.md").read_text()
    table = {code: {int(status)} for code, status in re.findall(r"^\| `([a-z_]+)` \| (\d{3})\b", page, flags=re.M)}
    assert table == raised()
    assert set(schema("server-answer")["$defs"]["error"]["properties"]["code"]["enum"]) == set(table)


def test_a_picture_enters_at_most_eight_files(opt_ml: Path) -> None:
    entered: set[str] = set()

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and Path(frame.f_code.co_filename).parent == SOURCES:
            entered.add(Path(frame.f_code.co_filename).name)

    found = artifact.load(opt_ml / "model")
    runtime = classifier.load_runtime(found, Selection("openvino", "float32", "float32", 1, ""))
    served = app.build(classifier.Classifier(found, runtime, 10**6), workers=1, metrics=Metrics(""), max_bytes=10**6)
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": picture(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # the caller stays connected
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        asyncio.run(served(scope, receive, send))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert sent[0]["status"] == 200
    assert {"app.py", "classifier.py", "images.py"} <= entered
    assert len(entered) <= 8, entered
