"""Before a new version of the function gets traffic, it must answer photos as the released model does."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from probe import aws, pre_traffic

MODEL = "arn:aws:sagemaker:eu-central-1:123456789012:model-package/kennel-prod/7"
VERSION = "arn:aws:lambda:eu-central-1:123456789012:function:classify:8"
FOLDER = "runs/kennel-prod/evaluate/x/probes"
LABELS = ("beagle", "poodle")


def right(photo: str, asked: int) -> Any:
    return {"predictions": [{"label": photo, "probability": 0.9}], "label": photo}


def crash(photo: str, asked: int) -> Any:
    return None


class Account:
    """All services that the hook calls; `function` answers a photo, whose bytes are its label, the nth time."""

    def __init__(self) -> None:
        self.package = MODEL
        self.function: Callable[[str, int], Any] = right
        self.endpoint = "sound"
        self.seconds = 0.01  # that each call takes
        self.now = 0.0
        self.asked: list[str] = []
        self.reports: list[dict[str, Any]] = []

    def describe_stacks(self, StackName: str) -> Any:
        parameters = [{"ParameterKey": "ModelPackageArn", "ParameterValue": self.package}]
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Parameters": parameters}]}

    def describe_model_package(self, ModelPackageName: str) -> Any:
        place = f"s3://data/{FOLDER.rpartition('/')[0]}/evaluation.json"
        return {"ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": place}}}}

    def get_object(self, Bucket: str, Key: str) -> Any:
        probes = [{"file": label, "label": label} for label in LABELS]
        objects = {f"{FOLDER}/probes.json": json.dumps({"format": 1, "probes": probes})}
        return {"Body": io.BytesIO((objects | {f"{FOLDER}/{label}": label for label in LABELS})[Key].encode())}

    def invoke(self, FunctionName: str, Payload: str) -> Any:
        assert FunctionName == VERSION
        photo = base64.b64decode(json.loads(Payload)["image"])
        self.asked.append(photo.decode(errors="replace"))
        self.now += self.seconds
        answer = self.function(self.asked[-1], len(self.asked))
        failed = {} if answer is not None else {"FunctionError": "Unhandled"}
        return {"Payload": io.BytesIO(json.dumps(answer or {"errorType": "Error"}).encode()), **failed}

    def invoke_endpoint(self, **request: Any) -> Any:
        assert request["CustomAttributes"] == "kennel-probe"
        if self.endpoint == "broken":
            raise ClientError({"Error": {"Code": "ModelError", "Message": ""}}, "InvokeEndpoint")
        said = {"classes": [request["Body"].decode(), "other"], "probabilities": [0.9, 0.1], "model": MODEL}
        return {"Body": io.BytesIO(json.dumps(said).encode())}

    def put_lifecycle_event_hook_execution_status(self, **given: Any) -> None:
        self.reports.append(given)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    made = Account()
    monkeypatch.setattr(aws, "_client", lambda service: made)
    clock = SimpleNamespace(monotonic=lambda: made.now)
    for module in (aws, pre_traffic):
        monkeypatch.setattr(module, "time", clock)
    for name, value in {
        "NEW_VERSION": VERSION,
        "HOSTING_STACK": "Prod-Hosting",
        "ENDPOINT_NAME": "kennel-prod",
        "LONGEST_MILLISECONDS": "4000",
    }.items():
        monkeypatch.setenv(name, value)
    aws.probes_of.cache_clear()
    yield made
    aws.probes_of.cache_clear()


EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "e-1"}


def test_a_version_that_answers_as_the_model_does_may_have_traffic(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    done = pre_traffic.handler(EVENT, None)
    assert done == {"status": "Succeeded", "model_package": MODEL, "right": 150}
    assert account.reports == [{"deploymentId": "d-1", "lifecycleEventHookExecutionId": "e-1", "status": "Succeeded"}]
    assert json.loads(capsys.readouterr().out) == {"level": "INFO", **done}


def wrong(photo: str, asked: int) -> Any:
    return right("cat", asked)


def internal(photo: str, asked: int) -> Any:
    return {"error": {"code": "internal_error", "message": "", "status": 500}}


def unavailable(photo: str, asked: int) -> Any:
    return {"error": {"code": "endpoint_unavailable", "message": "", "status": 503}}


def tired(photo: str, asked: int) -> Any:
    return right(photo, asked) if asked <= 100 else None


@pytest.mark.parametrize("function", [crash, wrong, internal, unavailable, tired])
def test_one_that_fails_where_the_endpoint_does_not_gets_none(
    account: Account, function: Callable[[str, int], Any]
) -> None:
    account.function = function
    done = pre_traffic.handler(EVENT, None)
    assert (done["status"], done["wrong"]) == ("Failed", 4)  # and is asked no more
    assert account.reports[0]["status"] == "Failed"


def test_one_that_is_slow_gets_none(account: Account) -> None:
    account.seconds = 4.5
    assert pre_traffic.handler(EVENT, None)["status"] == "Failed"


@pytest.mark.parametrize(("function", "status"), [(unavailable, "Succeeded"), (crash, "Failed"), (internal, "Failed")])
def test_what_the_endpoint_cannot_answer_either_is_held_against_the_function_only_if_it_breaks_its_contract(
    account: Account, function: Callable[[str, int], Any], status: str
) -> None:
    account.function, account.endpoint = function, "broken"
    done = pre_traffic.handler(EVENT, None)
    assert (done["status"], done.get("excused", 0)) == (status, 10 if status == "Succeeded" else 0)


def test_a_few_wrong_answers_of_many_stop_nothing(account: Account) -> None:
    account.function = lambda photo, asked: None if asked in (1, 50, 120) else right(photo, asked)
    assert pre_traffic.handler(EVENT, None)["status"] == "Succeeded"


@pytest.mark.parametrize(
    ("code", "status"), [("no_model", "Succeeded"), ("not_an_image", "Succeeded"), ("internal_error", "Failed")]
)
def test_where_no_model_is_released_a_documented_error_is_the_right_answer(
    account: Account, code: str, status: str
) -> None:
    account.package = ""
    account.function = lambda photo, asked: {"error": {"code": code, "message": "", "status": 503}}
    assert pre_traffic.handler(EVENT, None)["status"] == status
    assert account.asked[0].startswith("GIF89a")


def test_where_no_model_is_released_a_crash_is_not(account: Account) -> None:
    account.package, account.function = "", crash
    assert pre_traffic.handler(EVENT, None)["status"] == "Failed"


def test_a_hook_that_fails_itself_says_so_and_lets_nobody_wait(account: Account, monkeypatch: Any) -> None:
    def denied(**given: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "Invoke")

    monkeypatch.setattr(account, "invoke", denied)
    with pytest.raises(ClientError):
        pre_traffic.handler(EVENT, None)
    assert account.reports[0]["status"] == "Failed"
