"""Endpoints: the data plane serves what a model and its configuration say; here are states, events and metrics."""

import json
import logging
import re
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT
from kennel.rehearsal.cloud.cloudwatch.metrics import Metrics
from kennel.rehearsal.cloud.events import Publish
from kennel.rehearsal.cloud.rollout import Policy, Rollout, check_alarms
from kennel.rehearsal.cloud.sagemaker.packages import Configs, first_container
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore, check
from kennel.rehearsal.cloud.simulated_time import SimulatedTime
from kennel.rehearsal.interfaces import DataPlane, Deployment, EndpointAnswer, EndpointCall

_log = logging.getLogger(__name__)
# Until a new fleet is healthy. AWS names no figure, reports begin at some minutes; meanwhile alarms that now look at
# this fleet find no data, whatever they said of the one before.
_START_SECONDS = 180
_IN_EVENTS = (
    "EndpointName",
    "EndpointArn",
    "EndpointConfigName",
    "ProductionVariants",
    "FailureReason",
    "CreationTime",
    "LastModifiedTime",
)


class Endpoints(ResourceStore):
    """All endpoints, each deployed and updated in a thread of its own, with the metrics and events of SageMaker."""

    def __init__(
        self, configs: Configs, data_plane: DataPlane, publish: Publish, time: SimulatedTime, metrics: Metrics
    ) -> None:
        super().__init__("Endpoint", "endpoint", described_as={"DeploymentConfig": "LastDeploymentConfig"})
        self.models, self.configs, self.data_plane = configs.models, configs, data_plane
        self._publish, self._time, self._metrics = publish, time, metrics
        self._updated: set[str] = set()  # configurations that came by an update: their metrics name them

    def create(self, call: Call) -> Response:
        self._check_alarms(call.parameters)
        record = self.add(call.parameters)
        self._set_status(record, "Creating")
        threading.Thread(target=self._create, args=(record,), daemon=True).start()
        return json_answer({"EndpointArn": record["EndpointArn"]})

    def update(self, call: Call) -> Response:
        """Answer UpdateEndpoint: the new configuration replaces the old one once it serves, else the old one stays."""
        given = call.parameters
        check("UpdateEndpoint", given)
        record = self.get(given["EndpointName"])
        if record["EndpointStatus"] != "InService":
            raise ApiError("ValidationException", f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
        self._check_alarms(given)
        record.pop("FailureReason", None)
        previous = dict(record)
        for member in ("DeploymentConfig", "RetainAllVariantProperties"):
            record.pop(member, None)
        record.update({key: value for key, value in given.items() if key != "EndpointConfigName"})
        self._updated.add(given["EndpointConfigName"])
        self._set_status(record, "Updating")
        threading.Thread(target=self._update, args=(record, previous, given), daemon=True).start()
        return json_answer({"EndpointArn": record["EndpointArn"]})

    def delete(self, call: Call) -> Response:
        """Answer DeleteEndpoint once its servers have ended."""
        record = self.get(call.parameters["EndpointName"])
        self._set_status(record, "Deleting")
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
        variant = self.records[name]["ProductionVariants"][0]["VariantName"]
        self._measure(name, variant, answer)
        if answer.status > 299:
            raise _model_error(name, answer.status, answer.body)
        kind = Headers([*answer.headers.items()]).get("Content-Type", "application/octet-stream")
        return Response(answer.body, 200, {"Content-Type": kind, "x-Amzn-Invoked-Production-Variant": variant})

    def _measure(self, name: str, variant: str, answer: EndpointAnswer) -> None:
        """Publish the metrics of one answer: of each count 1 or 0, and the model's time in microseconds.

        https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
        """
        dimensions = {"EndpointName": name, "VariantName": variant}
        sets = [dimensions]
        if answer.config in self._updated:
            sets.append({**dimensions, "EndpointConfigName": answer.config})
        hundreds = 0 if answer.broken else answer.status // 100  # a broken answer is in the last of the counts alone
        counts = {
            "Invocations": 1,
            "Invocation4XXErrors": hundreds == 4,
            "Invocation5XXErrors": hundreds == 5,
            "InvocationModelErrors": answer.broken or hundreds != 2,
        }
        for one in sets:
            for metric, value in counts.items():
                self._metrics.put("AWS/SageMaker", metric, one, float(value))
            self._metrics.put("AWS/SageMaker", "ModelLatency", one, answer.seconds * 1e6, "Microseconds")

    def _create(self, record: Record) -> None:
        try:
            deployment, variant = self._resolve(record, record["EndpointConfigName"])
            self.data_plane.deploy_endpoint(deployment)
            self.data_plane.route_endpoint(deployment.endpoint, {deployment.config: 1.0})
        except Exception as error:
            _log.info("endpoint %s: %s", record["EndpointName"], error, exc_info=True)
            record["FailureReason"] = str(error)
            self._set_status(record, "Failed")
        else:
            record["ProductionVariants"] = [variant]
            self._set_status(record, "InService")

    def _update(self, record: Record, previous: Record, given: Record) -> None:
        """Run an update to its end. After an alarm's rollback there is no reason: alarms and configuration tell."""
        old, new = record["EndpointConfigName"], given["EndpointConfigName"]
        outcome = previous
        try:
            deployment, variant = self._resolve(record, new)
            if new == old or self._rollout(record, old, deployment).run():  # the same: there is nothing to shift
                outcome = {"EndpointConfigName": new, "ProductionVariants": [variant]}
        except Exception as error:
            _log.info("endpoint %s: %s", record["EndpointName"], error, exc_info=True)
            outcome = {**previous, "FailureReason": str(error)}
            self.data_plane.route_endpoint(record["EndpointName"], {old: 1.0})
        record.pop("PendingDeploymentSummary", None)
        record.update(outcome)
        self._set_status(record, "InService")

    def _rollout(self, record: Record, old: str, deployment: Deployment) -> Rollout:
        began = datetime.now(UTC)

        def tell(status: str, message: str) -> None:
            state = {"Status": status, "StatusMessage": message, "StartTime": datetime.now(UTC)}
            count = deployment.instance_count
            variant = {
                "VariantName": record["ProductionVariants"][0]["VariantName"],
                "CurrentInstanceCount": 0 if status == "Creating" else count,
                "DesiredInstanceCount": count,
                "VariantStatus": [state],
            }
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": deployment.config,
                "StartTime": began,
                "ProductionVariants": [variant],
            }
            self._publish_state(record, "SageMaker Endpoint Deployment State Change")

        def start() -> None:
            self.data_plane.deploy_endpoint(deployment)
            self._time.wait(_START_SECONDS)

        policy = Policy.of(record.get("DeploymentConfig", {}), deployment.instance_count)
        route = partial(self.data_plane.route_endpoint, deployment.endpoint)
        return Rollout(old, deployment.config, policy, start=start, route=route, time=self._time, tell=tell)

    def _check_alarms(self, given: Record) -> None:
        """Raise ApiError where the model's role may not see the alarms that are to roll back, or one is missing.

        SageMaker looks at them as that role (Developer Guide, Auto-Rollback Configuration and Monitoring).
        """
        model = self.models.get(self.configs.get(given["EndpointConfigName"])["ProductionVariants"][0]["ModelName"])
        alarms = given.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
        check_alarms([one["AlarmName"] for one in alarms], model["ExecutionRoleArn"], "ValidationException")

    def _set_status(self, record: Record, status: str) -> None:
        record.update(EndpointStatus=status, LastModifiedTime=datetime.now(UTC))
        self._publish_state(record, "SageMaker Endpoint State Change")

    def _publish_state(self, record: Record, kind: str) -> None:
        """Send an event: the members of DescribeEndpoint, with statuses in upper case and times in milliseconds."""
        detail = {name: record[name] for name in _IN_EVENTS if name in record}
        detail["EndpointStatus"] = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", record["EndpointStatus"]).upper()
        if kind == "SageMaker Endpoint Deployment State Change":
            detail["PendingDeploymentSummary"] = record["PendingDeploymentSummary"]
        plain = json.loads(json.dumps(detail, default=lambda time: int(time.timestamp() * 1000)))
        self._publish("aws.sagemaker", kind, plain, [record["EndpointArn"]])

    def _resolve(self, record: Record, config_name: str) -> tuple[Deployment, Record]:
        variant = self.configs.get(config_name)["ProductionVariants"][0]
        model = self.models.get(variant["ModelName"])
        container = self._container(model)
        count = int(variant.get("InitialInstanceCount", 1))
        if record.get("RetainAllVariantProperties") and record.get("ProductionVariants"):
            count = record["ProductionVariants"][0]["DesiredInstanceCount"]  # whatever the new configuration says
        deployment = Deployment(
            endpoint=record["EndpointName"],
            config=config_name,
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
        own = first_container(model)
        if "ModelPackageName" not in own:
            return own
        package = self.models.packages.get(own["ModelPackageName"])["InferenceSpecification"]["Containers"][0]
        merged = {**package.get("Environment", {}), **own.get("Environment", {})}
        return {**package, **own, "Environment": merged}


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
