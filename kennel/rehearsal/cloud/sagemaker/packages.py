"""Model packages: versions of a group, and the event that an approval sets off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import Answer, ApiError, json_answer
from kennel.rehearsal.cloud.sagemaker.resources import Kind, Record, arn, check, page

Publish = Callable[[str, str, dict[str, Any], list[str]], object]


class Packages(Kind):
    def __init__(self, groups: Kind, publish: Publish) -> None:
        super().__init__("ModelPackage", "model-package")
        self.groups, self.publish = groups, publish

    def get(self, name: str) -> Record:
        """By ARN."""
        try:
            return self.records[name]
        except KeyError:
            raise ApiError("ValidationException", f"ModelPackage {name} does not exist.") from None

    def create(self, call: Call) -> Answer:
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
        self._tell(self.records[name])
        return json_answer({"ModelPackageArn": name})

    def update(self, call: Call) -> Answer:
        check("UpdateModelPackage", call.parameters)
        record = self.get(call.parameters["ModelPackageArn"])
        before = record["ModelApprovalStatus"]
        record.update(call.parameters, LastModifiedTime=datetime.now(UTC))
        if record["ModelApprovalStatus"] != before:
            self._tell(record)
        return json_answer({"ModelPackageArn": record["ModelPackageArn"]})

    def listing(self, call: Call) -> Answer:
        asked = call.parameters
        wanted = {key: asked[key] for key in ("ModelPackageGroupName", "ModelApprovalStatus") if key in asked}
        if "ModelPackageGroupName" in wanted:
            wanted["ModelPackageGroupName"] = self.groups.get(wanted["ModelPackageGroupName"])["ModelPackageGroupName"]
        return page(call, [one for one in self.records.values() if wanted.items() <= one.items()])

    def _tell(self, record: Record) -> None:
        members = [
            "ModelPackageGroupName",
            "ModelPackageName",
            "ModelPackageArn",
            "ModelPackageVersion",
            "ModelPackageStatus",
            "ModelApprovalStatus",
            "InferenceSpecification",
            "CustomerMetadataProperties",
        ]
        detail = {name: record[name] for name in members if name in record}
        self.publish("aws.sagemaker", "SageMaker Model Package State Change", detail, [str(record["ModelPackageArn"])])
