"""Custom resources that act: the build of an image, and what happens when their stack is deleted."""

import hashlib
import io
import json
import uuid
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import REGION, client
from kennel.rehearsal.cloud.cloudformation.types.accepted import AcceptedResource
from kennel.rehearsal.interfaces import DataPlane

_RESPONSES = f"cloudformation-custom-resource-response-{REGION.replace('-', '')}"
_ANSWER_S = 3600


class FunctionOnDelete(AcceptedResource):
    """A custom resource whose function acts on deletion alone: on creation and update it is not called here."""

    stack_id: str

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        made = cls(kwargs["ResourceType"], kwargs["LogicalId"], cloudformation_json["Properties"])
        made.stack_id = kwargs["StackId"]
        return made

    def delete(self, account_id: str, region_name: str) -> None:
        """Call the function as CloudFormation does; raise ApiError with its reason unless it answers SUCCESS."""
        answer = self._ask("Delete")
        if answer.get("Status") != "SUCCESS":
            raise ApiError("CustomResourceFailed", str(answer.get("Reason", "the function did not answer")))

    def _ask(self, request: str) -> dict[str, Any]:
        """Return what the function wrote to the presigned URL; empty when it wrote nothing."""
        s3, key = client("s3"), str(uuid.uuid4())
        s3.create_bucket(Bucket=_RESPONSES)
        place = {"Bucket": _RESPONSES, "Key": key}
        event = {
            "RequestType": request,
            "RequestId": key,
            "StackId": self.stack_id,
            "LogicalResourceId": self.name,
            "PhysicalResourceId": self.physical_resource_id,
            "ResourceType": self.kind,
            "ResourceProperties": self.properties,
            "ResponseURL": s3.generate_presigned_url("put_object", Params=place, ExpiresIn=_ANSWER_S),
        }
        client("lambda").invoke(FunctionName=self.properties["ServiceToken"], Payload=json.dumps(event))
        with suppress(s3.exceptions.NoSuchKey):
            answer: dict[str, Any] = json.loads(s3.get_object(**place)["Body"].read())
            return answer
        return {}


class EmptiedBucket(AcceptedResource):
    """CDK's custom resource of a bucket with auto_delete_objects; its function, which is no Python, is not called."""

    def delete(self, account_id: str, region_name: str) -> None:
        """Delete every version of every object, where the bucket's tag still asks for it."""
        s3, bucket = client("s3"), self.properties["BucketName"]
        try:
            tags = {one["Key"]: one["Value"] for one in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}
        except ClientError:
            return
        if tags.get("aws-cdk:auto-delete-objects") == "true":
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
                if objects:
                    s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def image_builder(data_plane: DataPlane, work: Path) -> Handler:
    """Return what answers CodeBuild's StartBuild: the asset, unpacked below `work`, becomes an image."""

    def start_build(call: Call) -> Response:
        given = {one["name"]: one["value"] for one in call.parameters["environmentVariablesOverride"]}
        bucket, _, key = given["sourceS3Url"].removeprefix("s3://").partition("/")
        context = work / given["imageTag"] / "context"
        try:
            archive = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            zipfile.ZipFile(io.BytesIO(archive)).extractall(context)
            data_plane.build_image(given["imageTag"], context)
        except Exception as error:
            raise ApiError("InvalidInputException", f"the image could not be built: {error}") from error
        return json_answer({"build": {"id": f"{call.parameters['projectName']}:{given['imageTag']}"}})

    return start_build


class ImageBuild(AcceptedResource):
    """The custom resource of cdklabs.deploy-time-build; here the same source and build give the same tag."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        build = cls(kwargs["ResourceType"], kwargs["LogicalId"], properties)
        variables = {"imageTag": build.tag, "sourceS3Url": properties["sourceS3Url"]}
        client("codebuild").start_build(
            projectName=properties["codeBuildProjectName"],
            environmentVariablesOverride=[{"name": name, "value": value} for name, value in variables.items()],
        )
        return build

    @property
    def physical_resource_id(self) -> str:
        return self.tag

    @property
    def tag(self) -> str:
        return hashlib.sha256(json.dumps([self.name, self.properties], sort_keys=True).encode()).hexdigest()[:16]

    def get_cfn_attribute(self, attribute: str) -> str:
        if attribute != "ImageTag":
            raise ValueError(f"An image build has no attribute {attribute}")
        return self.tag

    def change(self, properties: Any) -> bool:
        """Return false: every change is another build with another tag."""
        return False
