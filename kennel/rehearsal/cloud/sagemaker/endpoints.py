"""Model packages with the events of their approval, models, endpoint configurations and endpoints.

The data plane serves what a model and its configuration say.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT
from kennel.rehearsal.cloud.iam.authorizer import caller
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore, arn, check, page
from kennel.rehearsal.interfaces import DataPlane, Deployment, EndpointCall

_log = logging.getLogger(__name__)
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
        if package := _first_container(parameters).get("ModelPackageName"):
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


class Endpoints(ResourceStore):
    """All endpoints, each deployed and updated in a thread of its own."""

    def __init__(self, models: Models, configs: Configs, data_plane: DataPlane) -> None:
        super().__init__("Endpoint", "endpoint", described_as={"DeploymentConfig": "LastDeploymentConfig"})
        self.models, self.configs, self.data_plane = models, configs, data_plane

    def create(self, call: Call) -> Response:
        """Answer CreateEndpoint and begin to deploy."""
        self.configs.get(call.parameters["EndpointConfigName"])
        record = self.add(call.parameters)
        record["EndpointStatus"] = "Creating"
        self._begin(record, previous=None)
        return json_answer({"EndpointArn": record["EndpointArn"]})

    def update(self, call: Call) -> Response:
        """Answer UpdateEndpoint: the new configuration replaces the old one once it serves, else the old one stays."""
        check("UpdateEndpoint", call.parameters)
        record = self.get(call.parameters["EndpointName"])
        if record["EndpointStatus"] in ("Creating", "Updating"):
            raise ApiError("ValidationException", f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
        self.configs.get(call.parameters["EndpointConfigName"])
        previous = {**record, "EndpointStatus": "InService"}
        record.update(call.parameters, EndpointStatus="Updating", LastModifiedTime=datetime.now(UTC))
        record.pop("FailureReason", None)
        self._begin(record, previous)
        return json_answer({"EndpointArn": record["EndpointArn"]})

    def delete(self, call: Call) -> Response:
        """Answer DeleteEndpoint once its servers have ended."""
        record = self.get(call.parameters["EndpointName"])
        self.data_plane.delete_endpoint(record["EndpointName"])
        return super().delete(call)

    def invoke(self, call: Call) -> Response:
        """Answer InvokeEndpoint; raise ApiError (ModelError) for a status over 299 of the container."""
        name = call.parameters["EndpointName"]
        if name not in self.records or "ProductionVariants" not in self.records[name]:
            raise ApiError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        given = {
            key.replace("-Sagemaker-", "-SageMaker-"): value
            for key, value in call.headers.items()
            if key in ("Content-Type", "Accept") or key.startswith("X-Amzn-Sagemaker-")
        }
        answer = self.data_plane.invoke_endpoint(EndpointCall(name, call.body, given))
        if answer.status > 299:
            raise _model_error(name, answer.status, answer.body)
        variant = self.records[name]["ProductionVariants"][0]["VariantName"]
        kind = Headers([*answer.headers.items()]).get("Content-Type", "application/octet-stream")
        return Response(answer.body, 200, {"Content-Type": kind, "x-Amzn-Invoked-Production-Variant": variant})

    def _begin(self, record: Record, previous: Record | None) -> None:
        threading.Thread(target=self._deploy, args=(record, previous), daemon=True).start()

    def _deploy(self, record: Record, previous: Record | None) -> None:
        try:
            deployment, variant = self._resolve(record)
            self.data_plane.deploy_endpoint(deployment)
        except Exception as error:
            _log.info("endpoint %s: %s", record["EndpointName"], error, exc_info=True)
            if previous is not None:
                record.update(previous)
            else:
                record["EndpointStatus"] = "Failed"
            record["FailureReason"] = str(error)
        else:
            record.update(ProductionVariants=[variant], EndpointStatus="InService")
        record["LastModifiedTime"] = datetime.now(UTC)

    def _resolve(self, record: Record) -> tuple[Deployment, Record]:
        config = self.configs.get(record["EndpointConfigName"])
        variant = config["ProductionVariants"][0]
        model = self.models.get(variant["ModelName"])
        container = self._container(model)
        count = int(variant.get("InitialInstanceCount", 1))
        deployment = Deployment(
            endpoint=record["EndpointName"],
            image=container["Image"],
            model_data_url=container["ModelDataUrl"],
            role_arn=model["ExecutionRoleArn"],
            environment=container.get("Environment", {}),
            instance_count=count,
        )
        shown = {"CurrentInstanceCount": count, "DesiredInstanceCount": count, "CurrentWeight": 1.0}
        return deployment, {"VariantName": variant["VariantName"], **shown}

    def _container(self, model: Record) -> dict[str, Any]:
        """Return the package's container, overlaid by what the model says itself."""
        own = _first_container(model)
        if "ModelPackageName" not in own:
            return own
        package = self.models.packages.get(own["ModelPackageName"])["InferenceSpecification"]["Containers"][0]
        merged = {**package.get("Environment", {}), **own.get("Environment", {})}
        return {**package, **own, "Environment": merged}


def _first_container(model: Record) -> dict[str, Any]:
    containers = [*([model["PrimaryContainer"]] if "PrimaryContainer" in model else []), *model.get("Containers", [])]
    if not containers:
        raise ApiError("ValidationException", "A model needs a PrimaryContainer or Containers.")
    first: dict[str, Any] = containers[0]
    return first


def _model_error(name: str, status: int, body: bytes) -> ApiError:
    text = body.decode(errors="replace")
    return ApiError(
        "ModelError",
        f'Received {"client" if status < 500 else "server"} error ({status}) from primary with message "{text}". '
        f"See the log of endpoint {name}.",
        424,
        OriginalStatusCode=status,
        OriginalMessage=text,
        LogStreamArn="",
    )
