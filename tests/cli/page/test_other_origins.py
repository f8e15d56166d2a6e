"""A real web page of another origin, in a real browser, against all that listens while a rehearsal is kept up."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kennel.rehearsal.interfaces import FunctionCall
from kennel.rehearsal.serving.functions import Functions
from tests.cli.page.world import PageWorld
from tests.cli.trees import png

# A key that the attacker knows, with any signature: neither was looked at before each run had a key of its own.
HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/lambda/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
    "X-Amz-Date": "20260101T000000Z",
}
KNOWN = "AKIAKENNELREHEARSAL0"

# Each way in which a page can send; a request that goes out but is not readable counts by what it does.
SEND = """async ([address, body, headers]) => {
  const ways = {
    get: () => fetch(address),
    post: () => fetch(address, {method: "POST", body}),
    signed: () => fetch(address, {method: "POST", body, headers}),
    put: () => fetch(address, {method: "PUT", body}),
    form: () => fetch(address, {method: "POST", body: new URLSearchParams({Action: "ListUsers"}), mode: "no-cors"}),
    unread: () => fetch(address, {method: "POST", body, mode: "no-cors"}),
    unread_get: () => fetch(address, {mode: "no-cors"}),
    beacon: async () => navigator.sendBeacon(address, body),
    picture: () => new Promise((done) => {
      const picture = new Image();
      picture.onload = picture.onerror = done;
      picture.src = address;
    }),
    script: () => new Promise((done) => {
      const script = document.createElement("script");
      script.onload = script.onerror = done;
      script.src = address;
      document.head.append(script);
    }),
    submit: () => new Promise((done) => {
      const frame = Object.assign(document.createElement("iframe"), {name: "frame", onload: done});
      const form = Object.assign(document.createElement("form"), {method: "POST", action: address, target: "frame"});
      form.enctype = "text/plain";
      form.append(Object.assign(document.createElement("input"), {name: body, value: ""}));
      document.body.append(frame, form);
      form.submit();
    }),
  };
  const read = {};
  for (const [name, way] of Object.entries(ways)) {
    const limit = new Promise((done) => setTimeout(done, 3000));
    const answer = await Promise.race([way().catch(() => null), limit]);
    if (answer instanceof Response && answer.type !== "opaque" && ![403, 404, 501].includes(answer.status))
      read[name] = `${answer.status} ${await answer.text()}`;
  }
  return read;
}"""


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    """The address of a web page of another site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><html><head></head><body>kittens</body></html>")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://kittens.example:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def signed() -> dict[str, str]:
    return {name: value.format(key=KNOWN) for name, value in HEADERS.items()}


def aws_paths() -> list[str]:
    invoke = "/2015-03-31/functions/classify/invocations"
    key = (
        f"X-Amz-Credential={KNOWN}/20260101/us-east-1/lambda/aws4_request"  # in a URL, for which no browser asks first
    )
    return ["/", invoke, f"{invoke}?{key}", "/moto-api/reset", "/moto-api/data.json"]


def stands(page: PageWorld) -> bool:
    """Whether the embedded AWS still has what was made in it, and the function was not called."""
    names = [one["FunctionName"] for one in page.world.cloud.client("lambda").list_functions()["Functions"]]
    return names == ["classify"] and page.asked == []


def test_a_page_of_another_site_can_do_nothing_to_the_embedded_aws(tab: Any, page: PageWorld, evil: str) -> None:
    tab.goto(evil)
    for path in aws_paths():
        assert tab.evaluate(SEND, [f"{page.world.cloud.url}{path}", "{}", signed()]) == {}
        assert stands(page)


@pytest.mark.long
def test_nor_can_it_by_a_name_that_came_to_lead_here(tab: Any, page: PageWorld) -> None:
    """The browser takes such a page's requests for those of the same origin, and lets it read and set all it likes."""
    tab.goto(f"http://kittens.example:{urlsplit(page.world.cloud.url).port}/")
    for path in aws_paths():
        assert tab.evaluate(SEND, [path, "{}", signed()]) == {}
        assert stands(page)


def test_nor_can_it_ask_the_function_through_the_page(tab: Any, page: PageWorld, evil: str) -> None:
    tab.goto(evil)
    paths = ("", "/", "/about", "/classify", f"{page.path}/about", f"{page.path}/classify")
    for path in paths:  # the last ones as if it had been told the address
        assert tab.evaluate(SEND, [f"{page.origin}{path}", "x", {"Content-Type": "application/json"}]) == {}
    tab.goto(f"http://kittens.example:{page.port}/")
    for path in paths:
        assert tab.evaluate(SEND, [path, "x", {"Content-Type": "application/json"}]) == {}
    assert page.asked == []
    assert page.post(png()).status_code == 200


@pytest.mark.long
def test_nor_can_it_take_or_answer_a_function_s_events(tab: Any, evil: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(
        "import os\ndef handler(event, context): return [os.getpid(), dict(os.environ)]"
    )
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    call = FunctionCall(arn, "1", "app.handler", tmp_path / "code", "", {}, 60.0, 256, b"{}")
    functions = Functions(environment=lambda _: {})
    try:
        pid, environment = json.loads(functions.invoke(call).payload)
        runtime = environment["AWS_LAMBDA_RUNTIME_API"]
        for start, base in ((evil, f"http://{runtime}"), (f"http://kittens.example:{runtime.rpartition(':')[2]}/", "")):
            tab.goto(start)
            for path in ("invocation/next", "init/error", "invocation/x/response"):
                body = '{"errorType": "evil"}'
                assert tab.evaluate(SEND, [f"{base}/2018-06-01/runtime/{path}", body, {"A": "b"}]) == {}
        assert json.loads(functions.invoke(call).payload)[0] == pid
    finally:
        functions.close()
