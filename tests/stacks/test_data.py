"""What holds data: its protection, and the logical ids that must never change."""

import pytest

from tests.stacks.synthesized import Synthesized, text
from tests.stacks.test_classify import files_of

BUCKETS, KEYS, GROUPS = "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::SageMaker::ModelPackageGroup"


# A changed id deletes (Dev) or abandons (Prod) the resource with all that it holds: do not edit this to please a test.
FROZEN = {
    "Bucket83908E77": BUCKETS,
    "AccessLogs8B620ECA": BUCKETS,
    "Key961B73FD": KEYS,
    "Models": GROUPS,
}


def test_what_holds_data_keeps_its_logical_id(synth: Synthesized, stage: str) -> None:
    held = {
        id_: resource["Type"]
        for id_, resource in synth.template(stage, "Data")["Resources"].items()
        if resource["Type"] in (BUCKETS, KEYS, GROUPS)
    }
    assert held == FROZEN


# RetainExceptOnCreate: a first deployment that fails leaves nothing under a literal name in the next one's way.
@pytest.mark.parametrize(("stage", "policies"), [("Dev", {"Delete"}), ("Prod", {"RetainExceptOnCreate", "Retain"})])
def test_prod_keeps_on_deletion_and_on_replacement_what_dev_deletes(
    synth: Synthesized, stage: str, policies: set[str]
) -> None:
    resources = synth.template(stage, "Data")["Resources"]
    for id_ in FROZEN:
        assert {resources[id_]["DeletionPolicy"], resources[id_]["UpdateReplacePolicy"]} == policies, id_


def test_the_data_bucket_is_private_versioned_and_encrypted_with_the_stages_key(synth: Synthesized, stage: str) -> None:
    bucket = synth.resources(stage, "Data", BUCKETS)["Bucket83908E77"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == {"Fn::GetAtt": ["Key961B73FD", "Arn"]}
    assert rule["BucketKeyEnabled"] is True


def test_the_key_rotates(synth: Synthesized, stage: str) -> None:
    assert synth.only(stage, "Data", KEYS)["EnableKeyRotation"] is True


def test_the_data_bucket_logs_its_accesses_and_tells_eventbridge(synth: Synthesized, stage: str) -> None:
    bucket = synth.resources(stage, "Data", BUCKETS)["Bucket83908E77"]["Properties"]
    assert bucket["LoggingConfiguration"]["DestinationBucketName"] == {"Ref": "AccessLogs8B620ECA"}
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


@pytest.mark.parametrize("bucket", ["Bucket83908E77", "AccessLogs8B620ECA"])
def test_a_bucket_refuses_whoever_comes_without_tls(synth: Synthesized, stage: str, bucket: str) -> None:
    policies = synth.resources(stage, "Data", "AWS::S3::BucketPolicy").values()
    (policy,) = [each["Properties"] for each in policies if each["Properties"]["Bucket"] == {"Ref": bucket}]
    (refusal,) = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Deny"]
    assert refusal["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (refusal["Action"], refusal["Principal"]) == ("s3:*", {"AWS": "*"})
    arn = {"Fn::GetAtt": [bucket, "Arn"]}
    assert refusal["Resource"] == [arn, {"Fn::Join": ["", [arn, "/*"]]}]


def test_old_versions_prepared_data_checkpoints_and_captures_expire_but_never_data_sets_or_models(
    synth: Synthesized, stage: str
) -> None:
    bucket = synth.resources(stage, "Data", BUCKETS)["Bucket83908E77"]["Properties"]
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    expiring = {rule.get("Prefix"): rule["ExpirationInDays"] for rule in rules.values() if "ExpirationInDays" in rule}
    assert expiring == {"prepared/": 30, f"runs/kennel-{stage.lower()}/checkpoints/": 14, "capture/": 90}
    assert rules["OldVersions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rules["OldVersions"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_the_model_package_group_has_its_literal_name_and_no_description(synth: Synthesized, stage: str) -> None:
    group = synth.only(stage, "Data", GROUPS)
    assert group == {"ModelPackageGroupName": f"kennel-{stage.lower()}"}


EMPTIER, FUNCTION = "Custom::RegisteredModels", "AWS::Lambda::Function"


def test_prod_has_nothing_that_could_delete_a_registered_model(synth: Synthesized) -> None:
    assert "unregister" not in str(synth.template("Prod", "Data")).lower()
    assert synth.resources("Prod", "Data", EMPTIER) == {}
    assert synth.resources("Prod", "Data", FUNCTION) == {}
    for room in synth.rooms("Prod"):
        assert "sagemaker:DeleteModelPackage" not in str(synth.template("Prod", room)), room


def test_the_groups_name_is_an_output(synth: Synthesized, stage: str) -> None:
    outputs = synth.template(stage, "Data")["Outputs"]
    assert outputs["ModelPackageGroupName"]["Value"] == f"kennel-{stage.lower()}"  # Ref would be its ARN


def test_devs_group_is_emptied_before_it_is_deleted(synth: Synthesized) -> None:
    (resource,) = synth.resources("Dev", "Data", EMPTIER).values()
    assert "Models" in resource["DependsOn"]
    assert resource["Properties"]["ModelPackageGroupName"] == "kennel-dev"
    assert resource["DeletionPolicy"] == "Delete"


def test_the_group_is_emptied_by_our_function_in_less_time_than_cloudformation_waits(synth: Synthesized) -> None:
    (resource,) = synth.resources("Dev", "Data", EMPTIER).values()
    id_, _ = resource["Properties"]["ServiceToken"]["Fn::GetAtt"]
    function = synth.resources("Dev", "Data", FUNCTION)[id_]["Properties"]
    assert function["Handler"] == "unregister.handler.handler"
    assert {file.split("/")[0] for file in files_of(synth, function)} == {"unregister"}
    assert function["Timeout"] < int(resource["Properties"]["ServiceTimeout"])


def test_the_emptier_reaches_its_own_group_and_looks_at_its_own_stack(synth: Synthesized) -> None:
    allowed = {
        action: each["Resource"]
        for role, each in synth.statements("Dev", "Data")
        if role.startswith("RegisteredModels")
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
        if not action.startswith(("xray:", "logs:"))
    }
    arn = "arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>"
    assert set(allowed) == {
        "sagemaker:DeleteModelPackage",
        "sagemaker:ListModelPackages",
        "cloudformation:DescribeStacks",
    }
    assert text(allowed["sagemaker:DeleteModelPackage"]) == f"{arn}:model-package/kennel-dev/*"
    assert allowed["sagemaker:ListModelPackages"] == "*"  # AWS's references disagree on its resource
    assert allowed["cloudformation:DescribeStacks"] == {"Ref": "AWS::StackId"}


def test_the_emptiers_log_goes_with_the_stage(synth: Synthesized) -> None:
    (log,) = synth.resources("Dev", "Data", "AWS::Logs::LogGroup").values()
    assert (log["DeletionPolicy"], log["Properties"]["RetentionInDays"]) == ("Delete", 7)
