"""What the operator's shell says of another AWS, of proxies and of certificates: nothing of it reaches a rehearsal."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = """
import boto3
def handler(event, context):
    boto3.client("s3").put_object(Bucket="data", Key="from a function", Body=b"x")
    return boto3.client("sts").get_caller_identity()["Arn"]
"""
CLIENT = "import boto3, sys; boto3.client('s3').put_object(Bucket='data', Key=sys.argv[1], Body=b'x')"
# Starts the parts of a rehearsal that are clients of AWS or have some as children, and prints who reached it.
PROGRAM = f"""
import json, subprocess, sys
from pathlib import Path
from kennel.page.snippets import shell_commands
from kennel.rehearsal.cloud.clients import forget_settings
forget_settings()
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.interfaces import DataPlane, FunctionCall
from kennel.rehearsal.serving.functions import Functions

work, shell = Path(sys.argv[1]), json.loads(sys.argv[2])
with Cloud(DataPlane(*[print] * 6), work) as cloud:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="from the rehearsal", Body=b"x")
    iam, anything = cloud.client("iam"), {{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
    trust = {{"Effect": "Allow", "Principal": {{"Service": "lambda.amazonaws.com"}}, "Action": "sts:AssumeRole"}}
    trusted, allowed = (json.dumps({{"Version": "2012-10-17", "Statement": [one]}}) for one in (trust, anything))
    role = iam.create_role(RoleName="writer", AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    iam.put_role_policy(RoleName="writer", PolicyName="only", PolicyDocument=allowed)
    cloud.client("s3", role).put_object(Bucket="data", Key="from a role", Body=b"x")
    template = json.dumps({{"Resources": {{"Topic": {{"Type": "AWS::SNS::Topic"}}}}}})
    cloud.client("cloudformation").create_stack(StackName="Some", TemplateBody=template)
    cloud.client("sagemaker").list_models()

    code = work / "code"
    code.mkdir()
    (code / "app.py").write_text({FUNCTION!r})
    functions = Functions(environment=cloud.environment)
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    call = FunctionCall(arn, "1", "app.handler", code, role, {{}}, 60.0, 256, b"{{}}")
    answer = functions.invoke(call)
    assert answer.error is None, answer
    assert b"assumed-role/writer" in answer.payload, answer
    functions.close()

    program = [sys.executable, "-c", {CLIENT!r}]
    commands = shell_commands(cloud.environment()) + '\\n"$@" "from a shell"'
    subprocess.run(["sh", "-euc", commands, "sh", *program], env=shell, check=True)
    print(json.dumps([one["Key"] for one in s3.list_objects_v2(Bucket="data")["Contents"]]))
"""


@pytest.fixture
def elsewhere() -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that listens with TCP and UDP and answers nothing, and what reached it."""
    received: list[bytes] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(1)
                    received.append(b"a connection: " + connection.recv(1000))

    def take() -> None:
        with suppress(OSError):
            while datagram := monitor.recv(1000):
                received.append(b"a datagram: " + datagram)

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as monitor:
        port = server.getsockname()[1]
        monitor.bind(("127.0.0.1", port))
        threads = [threading.Thread(target=accept, daemon=True), threading.Thread(target=take, daemon=True)]
        for thread in threads:
            thread.start()
        yield port, received
        server.shutdown(socket.SHUT_RDWR)


def hostile(port: int, home: Path) -> dict[str, str]:
    """Everything by which clients of AWS can be led to another server, or be kept from working at all."""
    there = f"http://127.0.0.1:{port}"
    services = ("S3", "STS", "IAM", "LAMBDA", "CLOUDFORMATION", "SAGEMAKER", "LOGS", "SQS")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **{name: there for upper in proxies for name in (upper, upper.lower())},
        **{name: "elsewhere.example" for name in ("NO_PROXY", "no_proxy")},
        **{f"AWS_ENDPOINT_URL_{service}": there for service in services},
        "AWS_ENDPOINT_URL": there,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": there,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": there,
        **{"AWS_CSM_ENABLED": "true", "AWS_CSM_PORT": str(port)},
        **{"AWS_PROFILE": "nowhere", "AWS_DEFAULT_PROFILE": "nowhere"},
        **{"AWS_ACCESS_KEY_ID": "AKIAOPERATOR", "AWS_SECRET_ACCESS_KEY": "own", "AWS_SESSION_TOKEN": "own"},
        **{"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"},
        **dict.fromkeys(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), "/nowhere"),
        **dict.fromkeys(("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"), "true"),
        **dict.fromkeys(("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS", "AWS_DEFAULTS_MODE"), "nonsense"),
        **dict.fromkeys(("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_STS_REGIONAL_ENDPOINTS"), "nonsense"),
        "HOME": str(home),
    }


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        pytest.param(True, "[profile", marks=pytest.mark.long),
        (False, "[default]\nendpoint_url = {there}\ncredential_process = touch {owned}\n"),
    ],
)
def test_nothing_that_the_shell_names_is_asked_and_nothing_breaks(
    elsewhere: tuple[int, list[bytes]], tmp_path: Path, settings: str, named: bool
) -> None:
    """The files of settings lie in HOME, or where variables say."""
    port, received = elsewhere
    owned, folder, work = tmp_path / "owned", tmp_path / ".aws", tmp_path / "work"
    for made in (folder, work):
        made.mkdir()
    for name in ("config", "credentials"):
        (folder / name).write_text(settings.format(there=f"http://127.0.0.1:{port}", owned=owned))
    files = {"AWS_CONFIG_FILE": str(folder / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials")}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    environment = {**plain, **hostile(port, tmp_path), **(files if named else {}), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(work), json.dumps(environment)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for who in ("the rehearsal", "a role", "a function", "a shell"):
        assert f"from {who}" in done.stdout
    assert received == []
    assert not owned.exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_MAX_ATTEMPTS", "AWS_USE_FIPS_ENDPOINT"])
def test_the_command_starts_beside_any_one_of_them(name: str, tmp_path: Path) -> None:
    """Several at once may hide each other."""
    (tmp_path / "config").write_text("[profile")
    value = str(tmp_path / "config") if name == "AWS_CONFIG_FILE" else hostile(9, tmp_path).get(name, "")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    code = "from kennel.cli import app; app(prog_name='kennel')"
    done = subprocess.run(
        [sys.executable, "-c", code, "rehearse", "--stage", "Nowhere", "--out", str(tmp_path / "out")],
        env={**plain, name: value, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "has no stage 'Nowhere'" in done.stderr


def test_the_app_is_synthesized_without_the_shell_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kennel.rehearsal import rehearse

    for name, value in hostile(9, tmp_path).items():
        monkeypatch.setenv(name, value)
    given: dict[str, str] = {}

    def run(_: list[str], env: dict[str, str], **more: object) -> subprocess.CompletedProcess[str]:
        given.update(env)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr("subprocess.run", run)
    rehearse.synthesize(tmp_path)
    assert {"PATH", "HOME", "JSII_NODE", "CDK_OUTDIR"} <= set(given)
    assert not [
        name for name in given if name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "SSL_CERT_FILE"
    ]
