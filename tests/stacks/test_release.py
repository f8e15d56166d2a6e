"""From an approval to the update of one stack, and to nothing else."""

from tests.stacks.synthesized import Synthesized, text
from tests.stacks.test_classify import files_of

FUNCTION = "AWS::Lambda::Function"


def test_only_approved_packages_of_the_stages_group_start_a_release(synth: Synthesized, stage: str) -> None:
    rule = synth.only(stage, "Release", "AWS::Events::Rule")
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [f"kennel-{stage.lower()}"], "ModelApprovalStatus": ["Approved"]},
    }


def test_the_rule_calls_the_function_and_only_the_rule_may(synth: Synthesized, stage: str) -> None:
    (rule,) = synth.resources(stage, "Release", "AWS::Events::Rule")
    (function,) = synth.resources(stage, "Release", FUNCTION)
    (target,) = synth.only(stage, "Release", "AWS::Events::Rule")["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": [function, "Arn"]}
    permission = synth.only(stage, "Release", "AWS::Lambda::Permission")
    assert permission["Principal"] == "events.amazonaws.com"
    assert permission["SourceArn"] == {"Fn::GetAtt": [rule, "Arn"]}


def test_the_function_knows_its_stack_and_its_group(synth: Synthesized, stage: str) -> None:
    function = synth.only(stage, "Release", FUNCTION)
    assert function["Handler"] == "promote.handler.handler"
    assert (function["Runtime"], function["Architectures"]) == ("python3.14", ["arm64"])
    assert function["Environment"]["Variables"] == {
        "HOSTING_STACK": f"Kennel-{stage}-Hosting",
        "MODEL_PACKAGE_GROUP": f"kennel-{stage.lower()}",
    }
    assert {file.split("/")[0] for file in files_of(synth, function)} == {"promote"}


def test_the_role_updates_and_reads_the_hosting_stack_and_no_other(synth: Synthesized, stage: str) -> None:
    statements = [each for _, each in synth.statements(stage, "Release") if "cloudformation" in str(each["Action"])]
    (statement,) = statements
    assert statement["Action"] == ["cloudformation:DescribeStacks", "cloudformation:UpdateStack"]
    own = "arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>"
    assert text(statement["Resource"]) == f"{own}:stack/Kennel-{stage}-Hosting/*"


def test_the_role_passes_no_role_and_calls_no_sagemaker(synth: Synthesized, stage: str) -> None:
    services = set()
    for _, statement in synth.statements(stage, "Release"):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        services |= {action.split(":")[0] for action in actions}
    assert services == {"cloudformation", "logs", "sqs", "xray"}


def test_an_approval_that_fails_is_retried_and_then_kept_encrypted(synth: Synthesized, stage: str) -> None:
    (queue,) = synth.resources(stage, "Release", "AWS::SQS::Queue")
    kept = {"Fn::GetAtt": [queue, "Arn"]}
    invoke = synth.only(stage, "Release", "AWS::Lambda::EventInvokeConfig")
    assert invoke["MaximumRetryAttempts"] == 2
    assert invoke["DestinationConfig"]["OnFailure"]["Destination"] == kept
    (target,) = synth.only(stage, "Release", "AWS::Events::Rule")["Targets"]
    assert target["DeadLetterConfig"] == {"Arn": kept}  # events that Lambda never took
    properties = synth.only(stage, "Release", "AWS::SQS::Queue")
    assert properties["SqsManagedSseEnabled"] is True
    assert properties["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_queue_refuses_plain_http_and_takes_events_from_this_rule_only(synth: Synthesized, stage: str) -> None:
    (rule,) = synth.resources(stage, "Release", "AWS::Events::Rule")
    deny, allow = synth.only(stage, "Release", "AWS::SQS::QueuePolicy")["PolicyDocument"]["Statement"]
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert allow["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}}


def test_concurrency_is_set_aside_only_where_the_stage_sets_some_aside(synth: Synthesized) -> None:
    assert synth.only("Prod", "Release", FUNCTION)["ReservedConcurrentExecutions"] == 1
    assert "ReservedConcurrentExecutions" not in synth.only("Dev", "Release", FUNCTION)
