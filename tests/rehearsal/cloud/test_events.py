"""What sets off what: objects, approvals and rules; functions that fail."""

import base64
import json
from typing import Any

import pytest
from moto.sns.models import sns_backends

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT
from kennel.rehearsal.cloud.events import read_path
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import World, eventually, refusal

REGION = "us-east-1:123456789012"


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    s3, events = (empty_world.cloud.client(name) for name in ("s3", "events"))
    s3.create_bucket(Bucket="uploads")
    on: dict[str, Any] = {"EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket="uploads", NotificationConfiguration=on)
    empty_world.learn(empty_world.role("jobs"))
    pipeline = f"arn:aws:sagemaker:{REGION}:pipeline/learn"
    starter = empty_world.role(
        "starter", {"Effect": "Allow", "Action": "sagemaker:StartPipelineExecution", "Resource": pipeline}
    )
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": ["uploads"]}, "object": {"key": [{"wildcard": "datasets/*.manifest"}]}},
    }
    events.put_rule(Name="uploaded", EventPattern=json.dumps(pattern))
    parameters = {"PipelineParameterList": [{"Name": "Data", "Value": "$.detail.object.key"}]}
    target = {"Id": "1", "Arn": pipeline, "RoleArn": starter, "SageMakerPipelineParameters": parameters}
    events.put_targets(Rule="uploaded", Targets=[target])
    empty_world.make_function("plain")
    return empty_world


@pytest.fixture(autouse=True)
def clean(world: World) -> None:
    world.pipelines.clear()
    world.calls.clear()
    world.cloud.pipeline_overrides.clear()


def put(world: World, key: str) -> None:
    world.cloud.client("s3").put_object(Bucket="uploads", Key=key, Body=b"[]")


def test_a_manifest_starts_the_pipeline_with_its_key(world: World) -> None:
    put(world, "datasets/dogs/1.manifest")
    eventually(lambda: world.pipelines)
    assert world.pipelines[0].parameters == {"Data": "datasets/dogs/1.manifest", "Epochs": "5"}


def test_overrides_are_laid_over_the_rule_s_parameters_and_can_be_seen(world: World) -> None:
    world.cloud.pipeline_overrides["Epochs"] = "1"
    put(world, "datasets/dogs/2.manifest")
    eventually(lambda: world.pipelines)
    arn = world.pipelines[0].arn
    sagemaker = world.cloud.client("sagemaker")
    parameters = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert {"Name": "Epochs", "Value": "1"} in parameters
    about = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert about["PipelineExecutionDescription"] == "Started by rule uploaded; the rehearsal set Epochs=1"


def test_a_large_upload_in_parts_starts_it_once(world: World) -> None:
    s3 = world.cloud.client("s3")
    where = {"Bucket": "uploads", "Key": "datasets/dogs/3.manifest"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    tag = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"[]")["ETag"]
    parts = {"Parts": [{"ETag": tag, "PartNumber": 1}]}
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    put(world, "datasets/after.manifest")
    eventually(lambda: len(world.pipelines) >= 2)
    started = sorted(one.parameters["Data"] for one in world.pipelines)
    assert started == ["datasets/after.manifest", "datasets/dogs/3.manifest"]


def test_any_other_object_starts_nothing(world: World) -> None:
    for key in ("datasets/dogs/images-00000.tar", "runs/x.manifest", "datasets/x.manifest.bak"):
        put(world, key)
    put(world, "datasets/last.manifest")
    eventually(lambda: world.pipelines)
    assert [one.parameters["Data"] for one in world.pipelines] == ["datasets/last.manifest"]


def test_a_rule_whose_role_may_not_start_the_pipeline_is_reported_and_starts_nothing(world: World) -> None:
    iam = world.cloud.client("iam")
    before = iam.get_role_policy(RoleName="starter", PolicyName="only")["PolicyDocument"]
    iam.delete_role_policy(RoleName="starter", PolicyName="only")
    put(world, "datasets/refused.manifest")
    eventually(lambda: [one for one in world.cloud.bus.undelivered if "StartPipelineExecution" in one])
    assert any(one.startswith("starter may not sagemaker:StartPipelineExecution") for one in world.cloud.denied)
    assert world.pipelines == []
    iam.put_role_policy(RoleName="starter", PolicyName="only", PolicyDocument=json.dumps(before))


def test_an_alias_runs_its_version_with_the_code_unpacked(world: World) -> None:
    world.function = lambda call: FunctionAnswer(call.payload, None, "said\n")
    answer = world.cloud.client("lambda").invoke(
        FunctionName=f"arn:aws:lambda:{REGION}:function:plain:live", Payload=b'{"x": 1}', LogType="Tail"
    )
    assert answer["Payload"].read() == b'{"x": 1}'
    assert (answer["StatusCode"], answer["ExecutedVersion"], "FunctionError" in answer) == (200, "1", False)
    assert base64.b64decode(answer["LogResult"]) == b"said\n"
    call = world.calls[0]
    assert (call.version, call.handler, call.timeout_s, call.memory_mb) == ("1", "app.handler.handler", 7.0, 512)
    assert (call.environment, call.role_arn.rpartition("/")[2]) == ({"A": "1"}, "plain-role")
    assert (call.code / "app/handler.py").read_text() == "# plain"


def test_a_name_without_a_qualifier_runs_the_latest(world: World) -> None:
    answer = world.cloud.client("lambda").invoke(FunctionName="plain", Payload=b"{}")
    assert (answer["ExecutedVersion"], world.calls[0].version) == ("$LATEST", "$LATEST")


def test_an_exception_of_the_function_is_an_answer_with_function_error(world: World) -> None:
    world.function = lambda call: FunctionAnswer(b'{"errorMessage": "no"}', "Unhandled", "")
    answer = world.cloud.client("lambda").invoke(FunctionName="plain", Payload=b"{}")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"].read()) == {"errorMessage": "no"}


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("nobody", b"{}", "ResourceNotFoundException"),
        ("plain:nope", b"{}", "ResourceNotFoundException"),
        ("plain", b"no json", "InvalidRequestContentException"),
        ("plain", b'"' + b"x" * (6 * 2**20) + b'"', "RequestTooLargeException"),
    ],
)
def test_what_lambda_refuses_is_refused(world: World, name: str, payload: bytes, code: str) -> None:
    invoke = world.cloud.client("lambda").invoke
    assert refusal(invoke, FunctionName=name, Payload=payload)[0] == code
    assert world.calls == []


def test_an_asynchronous_failure_is_tried_again_and_then_a_dead_letter(world: World) -> None:
    sqs = world.cloud.client("sqs")
    url = sqs.create_queue(QueueName="letters")["QueueUrl"]
    template = {
        "Resources": {
            "F": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "FunctionName": "unlucky",
                    "Runtime": "python3.14",
                    "Handler": "index.handler",
                    "Role": world.role("unlucky-role"),
                    "Code": {"ZipFile": "pass"},
                    "DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:{REGION}:letters"},
                },
            },
            "Retry": {
                "Type": "AWS::Lambda::EventInvokeConfig",
                "Properties": {"FunctionName": {"Ref": "F"}, "Qualifier": "$LATEST", "MaximumRetryAttempts": 1},
            },
        }
    }
    assert world.create("Unlucky", template)["StackStatus"] == "CREATE_COMPLETE"
    world.function = lambda call: FunctionAnswer(b"{}", "Unhandled", "")
    answer = world.cloud.client("lambda").invoke(FunctionName="unlucky", InvocationType="Event", Payload=b'{"n": 1}')
    assert answer["StatusCode"] == 202
    messages = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    assert [one["Body"] for one in messages] == ['{"n": 1}']
    assert len(world.calls) == 2


def test_a_run_s_end_is_an_event_that_names_pipeline_and_status(world: World) -> None:
    def fail(execution: Any) -> None:
        raise RuntimeError("no data")

    world.run = fail
    arn = world.make_function("listener")
    detail = {"pipelineArn": [f"arn:aws:sagemaker:{REGION}:pipeline/learn"]}
    detail["currentPipelineExecutionStatus"] = ["Failed"]
    kind = "SageMaker Model Building Pipeline Execution Status Change"
    pattern = {"source": ["aws.sagemaker"], "detail-type": [kind], "detail": detail}
    events = world.cloud.client("events")
    rule = events.put_rule(Name="failed", EventPattern=json.dumps(pattern))["RuleArn"]
    events.put_targets(Rule="failed", Targets=[{"Id": "1", "Arn": arn}])
    permission = {"Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com", "SourceArn": rule}
    world.cloud.client("lambda").add_permission(FunctionName="listener", StatementId="s", **permission)
    put(world, "datasets/dogs/4.manifest")
    eventually(lambda: world.calls)
    world.run = lambda execution: None
    assert json.loads(world.calls[0].payload)["detail"]["pipelineExecutionArn"] == world.pipelines[0].arn


def test_a_topic_gets_the_rule_s_text_with_the_event_s_values_in_it(world: World) -> None:
    topic = world.cloud.client("sns").create_topic(Name="heard")["TopicArn"]
    events = world.cloud.client("events")
    events.put_rule(Name="tell", EventPattern=json.dumps({"source": ["kennel.test"]}))
    text = {"InputPathsMap": {"run": "$.detail.run"}, "InputTemplate": '"The run <run> failed."'}
    events.put_targets(Rule="tell", Targets=[{"Id": "1", "Arn": topic, "InputTransformer": text}])
    entry = {"Source": "kennel.test", "DetailType": "Ended", "Detail": json.dumps({"run": "arn/1"})}
    events.put_events(Entries=[entry])
    sent = eventually(lambda: sns_backends[ACCOUNT]["us-east-1"].topics[topic].sent_notifications)
    assert sent[0][1] == '"The run arn/1 failed."'


def approvals(world: World, arn: str) -> str:
    events = world.cloud.client("events")
    pattern = {"source": ["aws.sagemaker"], "detail": {"ModelApprovalStatus": ["Approved"]}}
    rule = events.put_rule(Name="approved", EventPattern=json.dumps(pattern))["RuleArn"]
    events.put_targets(Rule="approved", Targets=[{"Id": "1", "Arn": arn}])
    return str(rule)


def test_an_approval_invokes_the_rule_s_function_once_permission_is_given(world: World) -> None:
    seen: list[FunctionCall] = []

    def remember(call: FunctionCall) -> FunctionAnswer:
        seen.append(call)
        return FunctionAnswer(b"{}", None, "")

    world.function = remember
    arn = world.make_function("promote")
    rule = approvals(world, arn)
    sagemaker = world.cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="dogs")
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    package = sagemaker.create_model_package(
        ModelPackageGroupName="dogs",
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus="Approved",
    )["ModelPackageArn"]
    eventually(lambda: [one for one in world.cloud.bus.undelivered if "no lambda permission" in one])
    assert seen == []
    world.cloud.client("lambda").add_permission(
        FunctionName="promote",
        StatementId="s",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Rejected")
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    eventually(lambda: seen)
    event = json.loads(seen[0].payload)
    assert (event["source"], event["detail-type"]) == ("aws.sagemaker", "SageMaker Model Package State Change")
    assert (event["detail"]["ModelPackageArn"], event["resources"]) == (package, [package])
    assert (event["detail"]["ModelPackageGroupName"], event["account"]) == ("dogs", "123456789012")
    assert len(seen) == 1


def test_put_events_reaches_the_same_rules(world: World) -> None:
    detail = {"bucket": {"name": "uploads"}, "object": {"key": "datasets/by-hand.manifest"}}
    entry = {"Source": "aws.s3", "DetailType": "Object Created", "Detail": json.dumps(detail)}
    assert world.cloud.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
    eventually(lambda: world.pipelines)
    assert world.pipelines[0].parameters["Data"] == "datasets/by-hand.manifest"


@pytest.mark.parametrize(
    "pattern",
    [
        {"source": [{"regex": "aws.*"}]},
        {"detail": {"object": {"key": [{"prefix": "a"}, {"regex": "b"}]}}},
        {"$or": [{"source": ["a"]}, {"source": [{"regex": "b"}]}]},
    ],
)
def test_a_comparison_that_is_not_rehearsed_is_refused_with_the_rule(world: World, pattern: dict[str, Any]) -> None:
    put_rule = world.cloud.client("events").put_rule
    code, text = refusal(put_rule, Name="refused", EventPattern=json.dumps(pattern))
    assert (code, "the comparison 'regex' is not rehearsed" in text) == ("InvalidEventPatternException", True)


def test_a_path_reads_a_field_of_the_event() -> None:
    assert read_path("$.detail.object.key", {"detail": {"object": {"key": "a"}}}) == "a"


def test_a_path_to_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(ApiError, match=r"\$\.detail\.bucket"):
        read_path("$.detail.bucket", {"detail": {}})
