"""What reaches a queue and how: events of SageMaker, FIFO queues, and functions that a queue is mapped to."""

import itertools
import json
import re
from typing import Any

import pytest

from kennel.rehearsal.cloud.events import EventBus
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import World, eventually

REGION = "us-east-1:123456789012"


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    return empty_world


@pytest.fixture(autouse=True)
def clean(world: World) -> None:
    world.calls.clear()


def hear(world: World, queue: str, rule: str, pattern: dict[str, Any], **target: Any) -> str:
    """Make a queue that gets what matches `pattern`, and which its policy lets the rule send to; return its URL."""
    sqs, events = (world.cloud.client(name) for name in ("sqs", "events"))
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if queue.endswith(".fifo") else {}
    url = sqs.create_queue(QueueName=queue, Attributes=fifo)["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{queue}"
    rule_arn = events.put_rule(Name=rule, EventPattern=json.dumps(pattern))["RuleArn"]
    events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn, **target}])
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Statement": [statement]})})
    return str(url)


def bodies(world: World, url: str) -> list[str]:
    """What waits in the queue, which is deleted."""
    sqs = world.cloud.client("sqs")
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    for one in found:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    return [one["Body"] for one in found]


def heard(world: World, url: str, count: int) -> list[dict[str, Any]]:
    """The messages of the queue, once there are `count` of them."""
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        found.extend(json.loads(body) for body in bodies(world, url))
        return len(found) >= count

    eventually(enough)
    return found


def say(world: World, **detail: Any) -> None:
    entry = {"Source": "here", "DetailType": "Said", "Detail": json.dumps(detail)}
    assert world.cloud.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def test_every_edit_of_a_package_is_an_event_that_names_what_changed(world: World) -> None:
    url = hear(world, "heard", "packages", {"detail-type": ["SageMaker Model Package State Change"]})
    sagemaker = world.cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="edited")
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    package = sagemaker.create_model_package(
        ModelPackageGroupName="edited",
        InferenceSpecification={"Containers": [{"Image": "local/x", "ModelDataUrl": "s3://b/m"}], **formats},
    )["ModelPackageArn"]
    made = [one["detail"] for one in heard(world, url, 2)]
    assert sorted(one["ModelPackageStatus"] for one in made) == ["Completed", "InProgress"]
    assert not any("UpdatedModelPackageFields" in one for one in made)
    sagemaker.update_model_package(ModelPackageArn=package, CustomerMetadataProperties={"a": "b"})
    edited = heard(world, url, 1)[0]["detail"]
    assert (edited["UpdatedModelPackageFields"], edited["ModelApprovalStatus"]) == (
        ["CustomerMetadataProperties"],
        "PendingManualApproval",
    )
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="good")
    approved = heard(world, url, 1)[0]["detail"]
    assert approved["UpdatedModelPackageFields"] == ["ApprovalDescription", "ModelApprovalStatus"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", approved["LastModifiedTime"])


def test_sagemaker_s_events_come_twice_now_and_then_and_out_of_order(world: World) -> None:
    delays = list(itertools.islice(EventBus(lambda *_: None, {}).delays, 100))
    assert 10 < sum(len(one) == 2 for one in delays) < 50
    assert 10 < sum(one[0] > 0 for one in delays) < 50
    assert delays == list(itertools.islice(EventBus(lambda *_: None, {}).delays, 100))
    url = hear(world, "late", "late", {"source": ["aws.sagemaker"], "detail-type": ["Late"]})
    kept, world.cloud.bus.delays = world.cloud.bus.delays, iter([(0.3, 0.4), (0.0,)])
    for number in (1, 2):
        world.cloud.bus.publish_as_sagemaker("aws.sagemaker", "Late", {"number": number}, [])
    world.cloud.bus.delays = kept
    assert [one["detail"]["number"] for one in heard(world, url, 3)] == [2, 1, 1]


def test_a_transformed_event_reaches_a_fifo_queue_once_however_often_it_comes(world: World) -> None:
    template = {
        "InputPathsMap": {"what": "$.detail.what", "n": "$.detail.n"},
        "InputTemplate": '{"said":<what>,"n":<n>}',
    }
    target = {"SqsParameters": {"MessageGroupId": "one"}, "InputTransformer": template}
    url = hear(world, "said.fifo", "said", {"source": ["here"]}, **target)
    for what in ("hello", "hello", 'a "word"'):
        say(world, what=what, n=5)
    say(world, what="last", n=6)
    found = heard(world, url, 3)
    assert sorted(one["said"] for one in found) == ['a "word"', "hello", "last"]
    assert {one["n"] for one in found if one["said"] == "last"} == {6}
    say(world, what="hello", n=5)  # after the first was deleted: SQS remembers it for five minutes
    say(world, what="end", n=7)
    assert [one["said"] for one in heard(world, url, 1)] == ["end"]


def test_a_queue_whose_policy_does_not_name_the_rule_gets_nothing(world: World) -> None:
    url = hear(world, "closed", "closed", {"source": ["here"], "detail": {"what": ["secret"]}})
    world.cloud.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    say(world, what="secret", n=1)
    eventually(lambda: [one for one in world.cloud.bus.undelivered if "does not let" in one and "closed" in one])
    assert bodies(world, url) == []


def mapped(world: World, name: str, tries: int) -> tuple[str, str]:
    """A function that gets the messages of a FIFO queue, and the URLs of that queue and of its dead letters."""
    sqs = world.cloud.client("sqs")
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    letters = sqs.create_queue(QueueName=f"{name}-letters.fifo", Attributes=fifo)["QueueUrl"]
    redrive = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{name}-letters.fifo", "maxReceiveCount": tries}
    attributes = {**fifo, "VisibilityTimeout": "60", "RedrivePolicy": json.dumps(redrive)}
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    world.make_function(name)
    source = f"arn:aws:sqs:{REGION}:{name}.fifo"
    iam = world.cloud.client("iam")
    actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": source}]}
    iam.put_role_policy(RoleName=f"{name}-role", PolicyName="only", PolicyDocument=json.dumps(policy))
    world.cloud.client("lambda").create_event_source_mapping(FunctionName=name, EventSourceArn=source, BatchSize=10)
    return str(url), str(letters)


def test_a_batch_that_fails_comes_again_whole_and_in_order_with_what_came_meanwhile(world: World) -> None:
    seen: list[list[str]] = []

    def fail_twice(call: FunctionCall) -> FunctionAnswer:
        seen.append([one["body"] for one in json.loads(call.payload)["Records"]])
        if len(seen) == 1:
            send("b")
        return FunctionAnswer(b'{"errorMessage": "busy"}', "Unhandled" if len(seen) < 3 else None, "")

    world.function = fail_twice
    url, letters = mapped(world, "ordered", tries=10)

    def send(body: str) -> None:
        world.cloud.client("sqs").send_message(QueueUrl=url, MessageBody=body, MessageGroupId="one")

    send("a")
    eventually(lambda: len(seen) == 3)
    assert seen == [["a"], ["a", "b"], ["a", "b"]]
    assert "busy" in world.cloud.event_sources.failure
    eventually(lambda: _waiting(world, url) == 0)
    assert bodies(world, letters) == []


def test_a_message_that_fails_too_often_is_a_dead_letter(world: World) -> None:
    world.function = lambda call: FunctionAnswer(b"{}", "Unhandled", "")
    url, letters = mapped(world, "hopeless", tries=2)
    world.cloud.client("sqs").send_message(QueueUrl=url, MessageBody="x", MessageGroupId="one")
    eventually(lambda: bodies(world, letters) == ["x"])
    assert len(world.calls) == 2


def _waiting(world: World, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = world.cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)
