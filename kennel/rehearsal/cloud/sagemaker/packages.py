"""Model packages with the events of their approval, models, and endpoint configurations."""

from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, json_answer
from kennel.rehearsal.cloud.events import Publish
from kennel.rehearsal.cloud.iam.authorizer import caller
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore, arn, check, page

_IN_EVENTS = (
    "ModelPackageGroupName",
    "ModelPackageName",
    "ModelPackageArn",
    "ModelPackageVersion",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "InferenceSpecification",
    "CustomerMetadataProperties",
    "ModelLifeCycle",
    "UpdatedModelPackageFields",
)


class Packages(ResourceStore):
    """All versions of all model groups."""

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
            "CreatedBy": _user(call),
            "LastModifiedTime": now,
        }
        self._publish_state({**self.records[name], "ModelPackageStatus": "InProgress"})
        self._publish_state(self.records[name])
        return json_answer({"ModelPackageArn": name})

    def update(self, call: Call) -> Response:
        check("UpdateModelPackage", call.parameters)
        record = self.get(call.parameters["ModelPackageArn"])
        given = {name: value for name, value in call.parameters.items() if name != "ClientToken"}
        changed = sorted(name for name, value in given.items() if record.get(name) != value)
        record.update(given, LastModifiedTime=datetime.now(UTC), LastModifiedBy=_user(call))
        if changed:
            self._publish_state({**record, "UpdatedModelPackageFields": changed})
        return json_answer({"ModelPackageArn": record["ModelPackageArn"]})

    def delete_group(self, call: Call) -> Response:
        """Answer DeleteModelPackageGroup; raise ApiError while the group has versions."""
        group = self.groups.get(call.parameters["ModelPackageGroupName"])["ModelPackageGroupName"]
        if any(record["ModelPackageGroupName"] == group for record in self.records.values()):
            text = f"Model Package Group {group} cannot be deleted because it still has model packages."
            raise ApiError("ConflictException", text)
        return self.groups.delete(call)

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
        detail |= {name: record[name].strftime("%Y-%m-%dT%H:%M:%SZ") for name in ("CreationTime", "LastModifiedTime")}
        self._publish("aws.sagemaker", "SageMaker Model Package State Change", detail, [str(record["ModelPackageArn"])])


def _user(call: Call) -> dict[str, Any]:
    return {"IamIdentity": {"Arn": caller(call)}}


class Models(ResourceStore):
    """All models; one from a package that nobody approved is refused, as SageMaker does."""

    def __init__(self, packages: Packages) -> None:
        super().__init__("Model", "model")
        self.packages = packages

    def add(self, parameters: Record) -> Record:
        if package := first_container(parameters).get("ModelPackageName"):
            found = self.packages.get(package)
            if found["ModelApprovalStatus"] != "Approved":
                raise ApiError("ValidationException", f"Model package {package} is {found['ModelApprovalStatus']}.")
        return super().add(parameters)


class Configs(ResourceStore):
    """All endpoint configurations; one with a model that does not exist is refused."""

    def __init__(self, models: Models) -> None:
        super().__init__("EndpointConfig", "endpoint-config")
        self.models = models

    def add(self, parameters: Record) -> Record:
        for variant in parameters.get("ProductionVariants", []):
            self.models.get(variant["ModelName"])
        return super().add(parameters)


def first_container(model: Record) -> dict[str, Any]:
    return {**(model.get("PrimaryContainer") or model["Containers"][0])}
