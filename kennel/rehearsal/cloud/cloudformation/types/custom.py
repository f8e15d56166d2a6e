"""Custom resources that act when their stack is deleted."""

import json
import uuid
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import REGION, client
from kennel.rehearsal.cloud.cloudformation.types.accepted import AcceptedResource

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
