"""Model packages: the versions of a group, and the events that their approval sends."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, json_answer
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore, arn, check, page

Publish = Callable[[str, str, dict[str, Any], list[str]], object]
_IN_EVENTS = (
    "ModelPackageGroupName",
    "ModelPackageName",
    "ModelPackageArn",
    "ModelPackageVersion",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "InferenceSpecification",
    "CustomerMetadataProperties",
)


class Packages(ResourceStore):
    def __init__(self, groups: ResourceStore, publish: Publish) -> None:
        super().__init__("ModelPackage", "model-package")
        self.groups, self._publish = groups, publish

    def get(self, name: str) -> Record:
        """Return a package by its ARN; raise ApiError where there is none."""
        if name not in self.records:
            raise ApiError("ValidationException", f"ModelPackage {name} does not exist.")
        return self.records[name]

    def create(self, call: Call) -> Response:
        check("CreateModelPackage", call.parameters)
        group = self.groups.get(call.parameters.get("ModelPackageGroupName", ""))["ModelPackageGroupName"]
        version = 1 + sum(record["ModelPackageGroupName"] == group for record in self.records.values())
        name = arn("model-package", f"{group}/{version}")
        now = datetime.now(UTC)
        self.records[name] = {
            "ModelApprovalStatus": "PendingManualApproval",
            **call.parameters,
            "ModelPackageName": name,
            "ModelPackageGroupName": group,
            "ModelPackageVersion": version,
            "ModelPackageArn": name,
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        self._publish_state(self.records[name])
        return json_answer({"ModelPackageArn": name})

    def update(self, call: Call) -> Response:
        check("UpdateModelPackage", call.parameters)
        record = self.get(call.parameters["ModelPackageArn"])
        before = record["ModelApprovalStatus"]
        record.update(call.parameters, LastModifiedTime=datetime.now(UTC))
        if record["ModelApprovalStatus"] != before:
            self._publish_state(record)
        return json_answer({"ModelPackageArn": record["ModelPackageArn"]})

    def listing(self, call: Call) -> Response:
        given = call.parameters
        filters = {key: given[key] for key in ("ModelPackageGroupName", "ModelApprovalStatus") if key in given}
        if "ModelPackageGroupName" in filters:
            filters["ModelPackageGroupName"] = self.groups.get(filters["ModelPackageGroupName"])[
                "ModelPackageGroupName"
            ]
        return page(call, [one for one in self.records.values() if filters.items() <= one.items()])

    def _publish_state(self, record: Record) -> None:
        detail = {name: record[name] for name in _IN_EVENTS if name in record}
        self._publish("aws.sagemaker", "SageMaker Model Package State Change", detail, [str(record["ModelPackageArn"])])
