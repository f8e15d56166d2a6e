"""The deployed function that the page calls, and how to call it with curl, the AWS CLI and boto3, ready to be pasted.

File names and addresses may be anybody's, so everything is quoted with shlex, json and urllib.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from shlex import quote
from typing import Any
from urllib.parse import quote as quote_url

from kennel.invoke import call

_literal = partial(json.dumps, ensure_ascii=False)  # of a text, such that Python reads it too
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

# A session's token where there is one. Without one curl's own Accept stands there: curl signs a header that is empty
# but does not send it, and AWS refuses such a signature.
_TOKEN = '-H "${AWS_SESSION_TOKEN:+x-amz-security-token: }${AWS_SESSION_TOKEN:-Accept: */*}"'

# No shell word is as long as a photo, and `base64 -w0` is GNU's only.
_EVENT_OF_FILE = """printf '{"image": "%s"}' "$(base64 < FILE | tr -d '\\n')" """


@dataclass(frozen=True)
class Target:
    """`client`: boto3's for Lambda; `function`: the alias's ARN.

    `api_url`: the stage's HTTP API, empty in a rehearsal, which has none. `environment`: the AWS_* variables that
    another terminal must set to reach the same AWS; empty where it has them already, so that no secret is shown.
    """

    stage: str
    function: str
    client: Any
    api_url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def region(self) -> str:
        return str(self.client.meta.region_name)

    @property
    def endpoint_url(self) -> str:
        """Return the address of Lambda's API."""
        return str(self.client.meta.endpoint_url)

    def ask(self, event: Mapping[str, str]) -> tuple[bytes, float]:
        """Return the function's answer as it came, its own errors included, and the milliseconds until it was here.

        Raise KennelError where the function broke or could not be called.
        """
        started = time.perf_counter()
        raw = call(self.client, self.function, event)
        return raw, 1000 * (time.perf_counter() - started)


def snippets(target: Target, source: str, value: str, kind: str) -> dict[str, str]:
    """Return the three calls.

    `source`: url, s3_uri or image; `value`: the address, or the file's name; `kind`: the file's media type.
    """
    return {
        "curl": _curl(target, source, value, kind),
        "AWS CLI": _exports(target) + _cli(target, source, value),
        "boto3": _boto3(target, source, value),
    }


def _curl(target: Target, source: str, value: str, kind: str) -> str:
    if not target.api_url:
        return _exports(target) + _curl_lambda(target, source, value)
    if source == "image":
        body = f"-H {quote('Content-Type: ' + kind)} --data-binary {quote('@' + value)}"
    else:
        body = f"-H 'Content-Type: application/json' --data-raw {quote(json.dumps({source: value}))}"
    return (
        '# Keys of a profile (AWS CLI 2): eval "$(aws configure export-credentials --format env)"\n'
        + _signed(target, "execute-api")
        + f"  {_TOKEN} \\\n"
        + f"  {body} \\\n  {quote(target.api_url)}\n"
    )


def _curl_lambda(target: Target, source: str, value: str) -> str:
    """Return the call of Lambda's own API, for a rehearsal, which has no HTTP API."""
    name, _, alias = target.function.split(":function:")[-1].partition(":")
    address = f"{target.endpoint_url}/2015-03-31/functions/{quote_url(name)}/invocations?Qualifier={quote_url(alias)}"
    return (
        f"{_event(source, value)} |\n{_signed(target, 'lambda')}"
        f"  -H 'Content-Type: application/json' --data-binary @- \\\n  {quote(address)}\n"
    )


def _signed(target: Target, service: str) -> str:
    keys = '"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"'
    return f"curl --aws-sigv4 aws:amz:{target.region}:{service} --user {keys} \\\n"


def _cli(target: Target, source: str, value: str) -> str:
    return (
        f"{_event(source, value)} > event.json\n"
        f"aws lambda invoke --function-name {quote(target.function)} --region {target.region} \\\n"
        "  --payload fileb://event.json answer.json\ncat answer.json\n"
    )


def _boto3(target: Target, source: str, value: str) -> str:
    imports, event = "import json\n", f'"{source}": {_literal(value)}'
    if source == "image":
        imports = "import base64\nimport json\nfrom pathlib import Path\n"
        event = f'"image": base64.b64encode(Path({_literal(value)}).read_bytes()).decode()'
    where = {"region_name": target.region}
    if target.environment:
        where |= {"endpoint_url": target.endpoint_url}
        where |= {name.lower(): target.environment[name] for name in _KEYS}
    given = "".join(f"    {name}={_literal(text)},\n" for name, text in where.items())
    return (
        f'{imports}\nimport boto3\n\nclient = boto3.client(\n    "lambda",\n{given})\nevent = {{{event}}}\n'
        "answer = client.invoke(\n"
        f"    FunctionName={_literal(target.function)},\n    Payload=json.dumps(event),\n)\n"
        'print(json.dumps(json.load(answer["Payload"]), indent=2))\n'
    )


def _event(source: str, value: str) -> str:
    if source == "image":
        return _EVENT_OF_FILE.strip().replace("FILE", quote(f"./{value}"))
    return f"printf %s {quote(json.dumps({source: value}))}"


def shell_commands(environment: Mapping[str, str]) -> str:
    """Return what lets a shell's clients of AWS reach the one of `environment`, whatever else that shell has set."""
    exports = [f"export {name}={quote(value)}" for name, value in environment.items()]
    return "\n".join(["unset AWS_PROFILE $(env | grep -o '^AWS_[A-Z0-9_]*')", *exports])


def _exports(target: Target) -> str:
    return f"{shell_commands(target.environment)}\n" if target.environment else ""
