"""Second deployments: change sets as the CDK command line uses them, outputs read anew, and the deletion of stacks."""

import json
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import World, eventually, refusal

Template = dict[str, Any]
NAME = "cdk-deploy-change-set"  # the same in every stack


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    return empty_world


def log_group(name: str, days: int = 7, **outputs: str) -> Template:
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name, "RetentionInDays": days}}
    return {"Resources": {"Group": group}, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}


def bucket(name: str, **more: Any) -> Template:
    return {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}, **more}


def change_set(world: World, stack: str, template: Template, kind: str = "CREATE", **more: Any) -> Any:
    """Create a change set and return its description."""
    cloudformation = world.cloud.client("cloudformation")
    made = cloudformation.create_change_set(
        StackName=stack, ChangeSetName=NAME, ChangeSetType=kind, TemplateBody=json.dumps(template), **more
    )
    return cloudformation.describe_change_set(ChangeSetName=made["Id"])


def execute(world: World, stack: str, template: Template, kind: str = "CREATE", **more: Any) -> Any:
    """Create a change set and execute it; return the stack's description at its end."""
    made = change_set(world, stack, template, kind, **more)
    world.cloud.client("cloudformation").execute_change_set(ChangeSetName=made["ChangeSetId"])
    return eventually(lambda: (about := world.stack(stack))["StackStatus"].endswith("_COMPLETE") and about)


def delete(world: World, stack: str) -> str:
    """Delete a stack and return its last status."""
    name = world.stack(stack)["StackId"]
    world.cloud.client("cloudformation").delete_stack(StackName=stack)
    eventually(lambda: not world.stack(name)["StackStatus"].endswith("IN_PROGRESS"))
    return str(world.stack(name)["StackStatus"])


def test_a_stack_is_in_review_until_its_first_change_set_is_executed(world: World) -> None:
    made = change_set(world, "Review", log_group("/review", Name="a"), Tags=[{"Key": "team", "Value": "vision"}])
    assert made["ExecutionStatus"] == "AVAILABLE"
    assert world.stack("Review")["StackStatus"] == "REVIEW_IN_PROGRESS"
    groups = world.cloud.client("logs").describe_log_groups(logGroupNamePrefix="/review")["logGroups"]
    assert groups == []
    world.cloud.client("cloudformation").execute_change_set(ChangeSetName=made["ChangeSetId"])
    stack = eventually(lambda: (about := world.stack("Review"))["StackStatus"] == "CREATE_COMPLETE" and about)
    assert stack["Outputs"][0]["OutputValue"] == "a"
    assert stack["Tags"] == [{"Key": "team", "Value": "vision"}]
    groups = world.cloud.client("logs").describe_log_groups(logGroupNamePrefix="/review")["logGroups"]
    assert groups[0]["retentionInDays"] == 7


def test_a_change_set_updates_its_stack_and_is_gone_then(world: World) -> None:
    execute(world, "Changed", log_group("/changed", 7))
    made = change_set(world, "Changed", log_group("/changed-too", 7), "UPDATE")
    assert [one["ResourceChange"]["Action"] for one in made["Changes"]] == ["Modify"]
    cloudformation = world.cloud.client("cloudformation")
    cloudformation.execute_change_set(ChangeSetName=made["ChangeSetId"])
    eventually(lambda: world.stack("Changed")["StackStatus"] == "UPDATE_COMPLETE")
    assert cloudformation.get_template(StackName="Changed")["TemplateBody"] == log_group("/changed-too", 7)
    code, _ = refusal(cloudformation.describe_change_set, ChangeSetName=NAME, StackName="Changed")
    assert code == "ChangeSetNotFound"
    cloudformation.delete_change_set(ChangeSetName=NAME, StackName="Changed")  # no error: it is gone


def test_a_change_set_without_changes_cannot_be_executed(world: World) -> None:
    execute(world, "Same", log_group("/same"))
    made = change_set(world, "Same", log_group("/same"), "UPDATE")
    assert (made["Status"], made["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in made["StatusReason"]
    code, _ = refusal(world.cloud.client("cloudformation").execute_change_set, ChangeSetName=made["ChangeSetId"])
    assert code == "ValidationError"


def test_a_failed_update_by_a_change_set_is_rolled_back_with_its_reason(world: World) -> None:
    execute(world, "Fails", log_group("/fails"))
    broken = log_group("/fails")
    broken["Resources"]["Models"] = {
        "Type": "AWS::SageMaker::ModelPackageGroup",
        "Properties": {"ModelPackageGroupName": "not a name"},
    }
    stack = execute(world, "Fails", broken, "UPDATE")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "not a name" in stack["StackStatusReason"]


def test_a_parameter_keeps_its_previous_value_also_where_it_comes_from_ssm(world: World) -> None:
    world.cloud.client("ssm").put_parameter(Name="/version", Value="30", Type="String")
    ssm = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/version"}
    template = {**log_group("/kept"), "Parameters": {"Version": ssm, "Model": {"Type": "String", "Default": ""}}}
    execute(world, "Kept", template, Parameters=[{"ParameterKey": "Model", "ParameterValue": "m1"}])
    template = json.loads(json.dumps(template).replace("/kept", "/kept-too"))
    previous = [{"ParameterKey": name, "UsePreviousValue": True} for name in ("Version", "Model")]
    stack = execute(world, "Kept", template, "UPDATE", Parameters=previous)
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    values = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert values == {"Version": "30", "Model": "m1"}


def test_another_stacks_output_is_read_anew_only_when_the_consumer_is_updated(world: World) -> None:
    """What AWS does with Fn::GetStackOutput, and why a consumer's text must change with what it refers to."""
    execute(world, "Producer", log_group("/producer", 7, Tag="one"))
    consumer = log_group("unused")
    reference = {"Fn::GetStackOutput": {"StackName": "Producer", "OutputName": "Tag"}}
    consumer["Resources"]["Group"]["Properties"]["LogGroupName"] = {"Fn::Join": ["", ["/consumer/", reference]]}
    execute(world, "Consumer", consumer)
    execute(world, "Producer", log_group("/producer", 7, Tag="two"), "UPDATE")
    logs = world.cloud.client("logs")

    def names() -> list[str]:
        found = logs.describe_log_groups(logGroupNamePrefix="/consumer/")["logGroups"]
        return [one["logGroupName"] for one in found]

    assert names() == ["/consumer/one"]
    assert change_set(world, "Consumer", consumer, "UPDATE")["Status"] == "FAILED"
    consumer["Resources"]["Group"]["Properties"]["RetentionInDays"] = 30
    execute(world, "Consumer", consumer, "UPDATE")
    assert names() == ["/consumer/two"]


def test_an_export_in_use_can_neither_change_nor_go(world: World) -> None:
    """Why a strong reference between stacks is right only for what never changes."""

    def exporter(value: str) -> Template:
        exported = {"Value": value, "Export": {"Name": "Exporter:Tag"}}
        return {**log_group("/exporter"), "Outputs": {"Tag": exported, "Other": {"Value": value}}}

    importer = log_group("unused")
    importer["Resources"]["Group"]["Properties"]["LogGroupName"] = {"Fn::ImportValue": "Exporter:Tag"}
    execute(world, "Exporter", exporter("/one"))
    execute(world, "Importer", importer)
    stack = execute(world, "Exporter", exporter("/two"), "UPDATE")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "Export Exporter:Tag cannot be updated as it is in use by Importer" in stack["StackStatusReason"]
    assert {one["OutputValue"] for one in stack["Outputs"]} == {"/one"}
    stack = execute(world, "Exporter", log_group("/exporter", Other="three"), "UPDATE")
    assert "Export Exporter:Tag cannot be deleted as it is in use by Importer" in stack["StackStatusReason"]
    world.cloud.client("cloudformation").delete_stack(StackName="Exporter")
    assert world.stack("Exporter")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "Cannot delete export Exporter:Tag as it is in use by Importer" in world.events("Exporter")[-1][2]
    assert [delete(world, name) for name in ("Importer", "Exporter")] == ["DELETE_COMPLETE"] * 2


def test_a_stack_is_deleted_in_the_reverse_order_and_known_by_its_id_afterwards(world: World) -> None:
    later = {**log_group("/later")["Resources"]["Group"], "DependsOn": "Group"}
    template = log_group("/first")
    template["Resources"] = {"Later": later, **template["Resources"]}
    execute(world, "Order", template)
    stack_id = world.stack("Order")["StackId"]
    assert delete(world, "Order") == "DELETE_COMPLETE"
    gone = [name for name, status, _ in world.events(stack_id) if status == "DELETE_COMPLETE"]
    assert gone == ["Later", "Group", "Order"]
    code, message = refusal(world.stack, name="Order")
    assert (code, message) == ("ValidationError", "Stack with id Order does not exist")
    execute(world, "Order", template)  # the name is free again
    assert world.stack("Order")["StackId"] != stack_id


def test_a_bucket_that_is_not_empty_fails_the_deletion_until_it_is(world: World) -> None:
    execute(world, "Full", {"Resources": {"Bucket": bucket("full-bucket")}})
    s3 = world.cloud.client("s3")
    s3.put_object(Bucket="full-bucket", Key="a", Body=b"a")
    assert delete(world, "Full") == "DELETE_FAILED"
    assert "Bucket" in world.stack("Full")["StackStatusReason"]
    assert any("not empty" in reason for _, status, reason in world.events("Full") if status == "DELETE_FAILED")
    s3.delete_object(Bucket="full-bucket", Key="a")
    assert delete(world, "Full") == "DELETE_COMPLETE"


def test_a_bucket_for_access_logs_is_empty_when_its_stack_goes_since_s3_delivers_them_hours_later(world: World) -> None:
    logged = bucket("logged")
    logged["Properties"]["LoggingConfiguration"] = {"DestinationBucketName": {"Ref": "Logs"}}
    execute(world, "Logged", {"Resources": {"Logs": bucket("access-logs"), "Bucket": logged}})
    world.cloud.client("s3").list_objects_v2(Bucket="logged")
    assert delete(world, "Logged") == "DELETE_COMPLETE"


@pytest.mark.parametrize("policy", ["Retain", "RetainExceptOnCreate"])
def test_what_is_retained_outlives_its_stack_and_stands_in_the_way_of_the_next(world: World, policy: str) -> None:
    name = f"kept-{policy.lower()}"
    template = {"Resources": {"Bucket": bucket(name, DeletionPolicy=policy)}}
    execute(world, "Keeps", template)
    assert delete(world, "Keeps") == "DELETE_COMPLETE"
    world.cloud.client("s3").head_bucket(Bucket=name)


def test_only_retain_except_on_create_takes_back_what_a_failed_creation_made(world: World) -> None:
    for policy in ("Retain", "RetainExceptOnCreate"):
        models = {
            "Type": "AWS::SageMaker::ModelPackageGroup",
            "Properties": {"ModelPackageGroupName": "not a name"},
            "DependsOn": "Bucket",
        }
        made = bucket(f"failed-{policy.lower()}", DeletionPolicy=policy)
        stack = execute(world, f"Failed{policy}", {"Resources": {"Bucket": made, "Models": models}})
        assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    s3 = world.cloud.client("s3")
    s3.head_bucket(Bucket="failed-retain")
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket="failed-retainexceptoncreate")


def test_a_bucket_that_may_be_emptied_is_emptied_with_all_its_versions(world: World) -> None:
    tagged = bucket("emptied")
    tagged["Properties"] |= {
        "Tags": [{"Key": "aws-cdk:auto-delete-objects", "Value": "true"}],
        "VersioningConfiguration": {"Status": "Enabled"},
    }
    empties = {"Type": "Custom::S3AutoDeleteObjects", "Properties": {"ServiceToken": "t", "BucketName": "emptied"}}
    execute(world, "Empties", {"Resources": {"Bucket": tagged, "Empty": {**empties, "DependsOn": "Bucket"}}})
    s3 = world.cloud.client("s3")
    for body in (b"one", b"two"):
        s3.put_object(Bucket="emptied", Key="a", Body=body)
    s3.delete_object(Bucket="emptied", Key="a")
    assert delete(world, "Empties") == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket="emptied")


def unregistering(world: World, name: str) -> Template:
    """The shape of the app's data stack: a group, and the custom resource that empties it first."""
    role = world.role(f"unregister-{name}")
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": f"unregister-{name}",
            "Handler": "index.handler",
            "Runtime": "python3.13",
            "Role": role,
            "Code": {"ZipFile": "handler = None"},
        },
    }
    group = {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": name}}
    token = {"Fn::GetAtt": ["Function", "Arn"]}
    custom = {
        "Type": "Custom::RegisteredModels",
        "Properties": {"ServiceToken": token, "ModelPackageGroupName": name},
        "DependsOn": "Models",
    }
    return {"Resources": {"Empty": custom, "Models": group, "Function": function}}


def answered(world: World, status: str, seen: list[dict[str, Any]]) -> Any:
    """The function: it notes the request and the stack's status, empties the group and answers as one is told to."""

    def function(call: FunctionCall) -> FunctionAnswer:
        request = json.loads(call.payload)
        seen.append({**request, "StackStatus": world.stack(request["StackId"])["StackStatus"]})
        sagemaker = world.cloud.client("sagemaker")
        group = request["ResourceProperties"]["ModelPackageGroupName"]
        if status == "SUCCESS":
            for one in sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]:
                sagemaker.delete_model_package(ModelPackageName=one["ModelPackageArn"])
        body = json.dumps({"Status": status, "Reason": "nobody knows"}).encode()
        put = urllib.request.Request(request["ResponseURL"], body, {"Content-Type": ""}, method="PUT")
        urllib.request.urlopen(put).close()
        return FunctionAnswer(b"null", None, "")

    return function


def registered(world: World, group: str) -> None:
    world.cloud.client("sagemaker").create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [{"Image": "local/x", "ModelDataUrl": "s3://b/m"}],
            "SupportedContentTypes": ["image/*"],
            "SupportedResponseMIMETypes": ["*"],
        },
    )


def test_the_function_of_a_custom_resource_sees_the_deletion_and_empties_the_model_group(world: World) -> None:
    seen: list[dict[str, Any]] = []
    world.function = answered(world, "SUCCESS", seen)
    execute(world, "Registered", unregistering(world, "registered"))
    registered(world, "registered")
    assert delete(world, "Registered") == "DELETE_COMPLETE"
    assert [(one["RequestType"], one["StackStatus"]) for one in seen] == [("Delete", "DELETE_IN_PROGRESS")]
    assert world.cloud.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []


def test_a_model_group_that_nobody_emptied_fails_the_deletion_with_the_functions_reason(world: World) -> None:
    world.function = answered(world, "FAILED", [])
    execute(world, "Stuck", unregistering(world, "stuck"))
    registered(world, "stuck")
    assert delete(world, "Stuck") == "DELETE_FAILED"
    reasons = {name: reason for name, status, reason in world.events("Stuck") if status == "DELETE_FAILED"}
    assert "nobody knows" in reasons["Empty"]
    assert "still has model packages" in reasons["Models"]
