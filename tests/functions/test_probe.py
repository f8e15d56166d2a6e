"""While a release lasts, photos with known answers are sent, and only the new model's answers are judged."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from probe import aws, handler
from tests.contracts import validate

NEW, OLD = (f"arn:aws:sagemaker:eu-central-1:123456789012:model-package/kennel-prod/{number}" for number in (8, 7))
PROBES = {"format": 1, "probes": [{"file": "00.image", "label": "beagle"}, {"file": "01.image", "label": "poodle"}]}
FOLDER = "runs/kennel-prod/evaluate/x/probes"
EVALUATION = {"S3Uri": "s3://data/runs/kennel-prod/evaluate/x/evaluation.json", "ContentType": "application/json"}


class Account:
    """All services that the function calls; each answer of the endpoint is the next of `answers`."""

    def __init__(self) -> None:
        self.status = "UPDATE_IN_PROGRESS"
        self.metrics: Any = {"ModelQuality": {"Statistics": EVALUATION}}
        self.objects = {f"{FOLDER}/probes.json": json.dumps(PROBES).encode()}
        self.objects |= {f"{FOLDER}/{one['file']}": one["label"].encode() for one in PROBES["probes"]}  # type: ignore[attr-defined]
        self.serves = [NEW]  # which model answers, in turns
        self.labels: dict[str, str] = {}  # what it says of a photo where that is not the truth
        self.asked: list[dict[str, Any]] = []
        self.published: list[dict[str, Any]] = []

    def describe_stacks(self, StackName: str) -> Any:
        parameters = [{"ParameterKey": "ModelPackageArn", "ParameterValue": NEW}]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": parameters}]}

    def describe_model_package(self, ModelPackageName: str) -> Any:
        assert ModelPackageName == NEW
        return {"ModelMetrics": self.metrics}

    def get_object(self, Bucket: str, Key: str) -> Any:
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Key])}

    def invoke_endpoint(self, **request: Any) -> Any:
        model = self.serves[len(self.asked) % len(self.serves)]
        self.asked.append(request)
        if model == "broken":
            raise ClientError({"Error": {"Code": "ModelError", "Message": ""}}, "InvokeEndpoint")
        truth = request["Body"].decode()
        label = self.labels.get(truth, truth)
        other = "poodle" if label == "beagle" else "beagle"
        said = {"classes": [label, other], "probabilities": [0.9, 0.1], "model": model}
        return {"Body": io.BytesIO(json.dumps(said).encode())}

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert Namespace == "Kennel/Release"
        self.published += MetricData


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    made = Account()
    monkeypatch.setattr(aws, "_client", lambda service: made)
    monkeypatch.setattr(handler, "_AT_A_TIME", 1)  # so that the answers come in turns
    aws.probes_of.cache_clear()
    yield made
    aws.probes_of.cache_clear()


def test_nothing_is_sent_while_no_release_runs(account: Account) -> None:
    account.status = "UPDATE_COMPLETE"
    assert handler.probe("Prod-Hosting", "kennel-prod") == {"action": "idle"}
    assert account.asked == account.published == []


def test_sixty_marked_photos_are_sent_and_right_answers_are_published_as_such(account: Account) -> None:
    validate("probes", PROBES)
    done = handler.probe("Prod-Hosting", "kennel-prod")
    assert done == {"action": "probed", "model_package": NEW, "right": 60}
    ids = {one["InferenceId"] for one in account.asked}
    assert len(ids) == len(account.asked)
    assert all(each.startswith("kennel-probe-") and len(each) <= 64 for each in ids)
    assert {(one["EndpointName"], one["CustomAttributes"]) for one in account.asked} == {
        ("kennel-prod", "kennel-probe")
    }
    (datum,) = account.published
    assert (datum["MetricName"], datum["Values"], datum["Counts"]) == ("WrongAnswers", [0.0], [60])
    assert datum["Dimensions"] == [{"Name": "ModelPackage", "Value": NEW}]


def test_a_model_that_answers_otherwise_than_it_was_evaluated_is_counted_in_percent(account: Account) -> None:
    account.labels = {"poodle": "beagle"}
    assert handler.probe("s", "e")["wrong"] == 30
    assert (account.published[0]["Values"], account.published[0]["Counts"]) == ([0.0, 100.0], [30, 30])


def test_answers_of_the_old_model_are_not_judged_and_failures_are_left_to_sagemakers_own_metrics(
    account: Account,
) -> None:
    account.serves, account.labels = [OLD, "broken", NEW], {"poodle": "beagle", "beagle": "poodle"}
    done = handler.probe("s", "e")
    assert {name: done[name] for name in ("old", "failed", "wrong")} == {"old": 20, "failed": 20, "wrong": 20}
    assert account.published[0]["Counts"] == [20]


def test_where_no_answer_is_the_new_models_nothing_is_published(account: Account) -> None:
    account.serves = [OLD]
    handler.probe("s", "e")
    assert account.published == []


@pytest.mark.parametrize("metrics", [{}, {"ModelQuality": {"Statistics": EVALUATION}}])
def test_a_model_that_was_evaluated_without_probes_is_released_without_them(account: Account, metrics: Any) -> None:
    account.metrics = metrics
    account.objects.clear()
    assert handler.probe("s", "e")["reason"] == "the model's evaluation has left no probes"
    assert account.asked == []


def test_the_handler_takes_its_names_from_the_environment_and_logs_what_it_did(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTING_STACK", "Prod-Hosting")
    monkeypatch.setenv("ENDPOINT_NAME", "kennel-prod")
    handler.handler({}, None)
    assert json.loads(capsys.readouterr().out) == {
        "level": "INFO",
        "action": "probed",
        "model_package": NEW,
        "right": 60,
    }
