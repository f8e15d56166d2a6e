"""`kennel verify` on artifacts in S3 and on model packages."""

import json
from collections.abc import Callable
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from kennel.aws import client
from kennel.errors import KennelError
from kennel.verify.command import Finding, check_artifact, check_package
from tests.cli.verify.artifacts import IMAGE, model, pack, sha, wrong_ones


def test_an_artifact_in_s3_is_checked(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="runs/model.tar.gz", Body=pack(model(image="")))
    assert wrong_ones(check_artifact(f"s3://{bucket}/runs/model.tar.gz", client=client)) == {}
    with pytest.raises(KennelError, match="HeadObject"):
        check_artifact(f"s3://{bucket}/runs/other.tar.gz", client=client)


@pytest.fixture
def register(s3: Any, bucket: str) -> Callable[..., str]:
    """Put a model into S3 and the registry; return its ARN. `metadata` is laid over what fits."""

    def run(files: dict[str, bytes], **metadata: str) -> str:
        s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=pack(files))
        sagemaker = boto3.client("sagemaker")
        sagemaker.create_model_package_group(ModelPackageGroupName=bucket)
        fitting = {
            "passport_sha256": sha(files["passport.json"]),
            "data_fingerprint": "ab12",
            "code_sha256": "c0de",
            "training_image": IMAGE,
        }
        arn: str = sagemaker.create_model_package(
            ModelPackageGroupName=bucket,
            InferenceSpecification={
                "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}],
                "SupportedContentTypes": ["image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties={**fitting, **metadata},
        )["ModelPackageArn"]
        return arn

    return run


def test_a_model_package_is_held_to_the_artifacts_passport(register: Callable[..., str]) -> None:
    findings = check_artifact(register(model()), client=client)
    assert wrong_ones(findings) == {}
    assert {"registry: passport_sha256", "registry: code_sha256", "model.bin"} <= {one.what for one in findings}


@pytest.mark.parametrize("key", ["passport_sha256", "data_fingerprint", "code_sha256", "training_image"])
def test_metadata_that_speak_of_another_artifact_are_named(register: Callable[..., str], key: str) -> None:
    wrong = wrong_ones(check_artifact(register(model(), **{key: "other"}), client=client))
    assert wrong.keys() == {f"registry: {key}"}
    assert wrong[f"registry: {key}"].startswith("other, but the passport says")


def test_an_artifact_that_was_exchanged_after_its_registration_is_found(
    register: Callable[..., str], s3: Any, bucket: str
) -> None:
    arn = register(model())
    s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=pack(model(image="another")))
    assert wrong_ones(check_artifact(arn, client=client)).keys() == {
        "registry: passport_sha256",
        "registry: training_image",
    }


def test_it_is_said_who_approved_and_why(register: Callable[..., str]) -> None:
    arn = register(model())
    approval = {"ModelApprovalStatus": "Approved", "ApprovalDescription": "looked at the report"}
    boto3.client("sagemaker").update_model_package(ModelPackageArn=arn, **approval)
    said = next(one for one in check_artifact(arn, client=client) if one.what == "approval")
    assert said == Finding(True, "approval", "Approved, last changed by fake-user-profile-name: looked at the report")


@pytest.mark.parametrize(
    ("changed", "who"),
    [
        ({"IamIdentity": {"Arn": "arn:aws:iam::1:user/ada"}}, "arn:aws:iam::1:user/ada"),
        ({"UserProfileName": "ada"}, "ada"),
        (None, "the trainer"),
    ],
)
def test_who_changed_it_last_is_named_before_who_made_it(changed: dict[str, Any] | None, who: str) -> None:
    package = {"CreatedBy": {"UserProfileName": "the trainer"}, "LastModifiedBy": changed}
    said = next(one for one in check_package(package, {}, client) if one.what == "approval")
    assert said.detail == f"unknown, last changed by {who}"


def test_an_images_digest_is_resolved_and_its_absence_is_a_note(register: Callable[..., str]) -> None:
    ecr = boto3.client("ecr")
    arn = register(model())
    before = {one.what: one for one in check_artifact(arn, client=client)}["training image"]
    assert before.ok
    assert before.detail.startswith("not resolved: AWS refused DescribeImages")
    ecr.create_repository(repositoryName="kennel")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {"digest": "sha256:1"}, "layers": []})
    put = ecr.put_image(repositoryName="kennel", imageManifest=manifest, imageTag="v1")["image"]
    after = {one.what: one for one in check_artifact(arn, client=client)}
    assert after["training image"].detail == f"{put['imageId']['imageDigest']} ({IMAGE})"
    assert after["inference image"].detail == after["training image"].detail
    ecr.delete_repository(repositoryName="kennel", force=True)


def test_a_package_that_is_not_there_is_one_sentence(aws: str) -> None:
    with pytest.raises(KennelError, match="DescribeModelPackage"):
        check_artifact("arn:aws:sagemaker:us-east-1:123456789012:model-package/none/1", client=client)
