"""CodeDeploy's deployments of a function: a hook is asked, then an alias's calls are shifted, and back for an alarm.

moto stores applications and groups. https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-steps-lambda.html
"""

import json
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.codedeploy.models import DeploymentGroup, codedeploy_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.rollout import Policy, Rollout, check_alarms
from kennel.rehearsal.cloud.simulated_time import SimulatedTime

_CANARY = re.compile(r"CodeDeployDefault\.LambdaCanary(\d+)Percent(\d+)Minutes")
_IN_GROUP = {  # what UpdateDeploymentGroup may change, and moto's attribute
    "alarmConfiguration": "alarm_configuration",
    "autoRollbackConfiguration": "auto_rollback_configuration",
    "deploymentConfigName": "deployment_config_name",
    "deploymentStyle": "deployment_style",
    "serviceRoleArn": "service_role_arn",
}


class Deployments:
    """Runs each deployment in a thread of its own, with the credentials of its group's role."""

    def __init__(self, time: SimulatedTime) -> None:
        self._time = time
        self._said: dict[str, str] = {}  # by hook execution
        self._errors: dict[str, dict[str, str]] = {}  # by deployment

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return what answers CodeDeploy's operations, by service and operation; moto answers the others."""
        own: dict[str, Handler] = {
            "CreateDeployment": self._create,
            "GetDeployment": self._get,
            "PutLifecycleEventHookExecutionStatus": self._hear,
            "UpdateDeploymentGroup": _update_group,
            "DeleteDeploymentGroup": _delete_group,
            "DeleteApplication": _delete_application,
        }
        return {("codedeploy", operation): handler for operation, handler in own.items()}

    def _create(self, call: Call) -> Response:
        given = call.parameters
        names = (given["applicationName"], given["deploymentGroupName"])
        backend = codedeploy_backends[ACCOUNT][REGION]
        group = backend.get_deployment_group(*names)
        id_ = backend.create_deployment(*names, given["revision"])
        threading.Thread(target=self._run, args=(id_, group), daemon=True).start()
        return json_answer({"deploymentId": id_})

    def _get(self, call: Call) -> Response:
        id_ = call.parameters["deploymentId"]
        status = codedeploy_backends[ACCOUNT][REGION].get_deployment(id_).status
        info = {"deploymentId": id_, "status": status, "errorInformation": self._errors.get(id_, {})}
        return json_answer({"deploymentInfo": info})

    def _hear(self, call: Call) -> Response:
        given = call.parameters
        self._said[given["lifecycleEventHookExecutionId"]] = given["status"]
        return json_answer({"lifecycleEventHookExecutionId": given["lifecycleEventHookExecutionId"]})

    def _run(self, id_: str, group: DeploymentGroup) -> None:
        about = codedeploy_backends[ACCOUNT][REGION].get_deployment(id_)
        spec = json.loads(about.revision["appSpecContent"]["content"])
        about.status = "InProgress"
        try:
            is_done = self._rollout(id_, group, spec).run()
        except (ApiError, ClientError) as error:
            self._errors[id_] = {"code": "HEALTH_CONSTRAINTS", "message": str(error)}
            about.status = "Failed"
            return
        if not is_done:
            message = f"Alarms of the group {group.deployment_group_name} were activated, the version before is back."
            self._errors[id_] = {"code": "ALARM_ACTIVE", "message": message}
        about.status = "Succeeded" if is_done else "Stopped"

    def _rollout(self, id_: str, group: DeploymentGroup, spec: Mapping[str, Any]) -> Rollout:
        """Return what shifts the alias from the one version to the other, once the hook agrees."""
        [resource] = spec["Resources"]
        [target] = [one["Properties"] for one in resource.values()]
        alias = {"FunctionName": target["Name"], "Name": target["Alias"]}
        old, new = target["CurrentVersion"], target["TargetVersion"]
        hooks = [name for one in spec.get("Hooks", []) if (name := one.get("BeforeAllowTraffic"))]
        role = group.service_role_arn

        def start() -> None:
            check_alarms(_alarms(group), group.service_role_arn, "ALARM_ACTIVE")
            if client("lambda", role).get_alias(**alias)["FunctionVersion"] != old:
                text = "The Lambda function alias version does not match the current version in AppSpec file."
                raise ApiError("INVALID_LAMBDA_CONFIGURATION", text)
            for hook in hooks:
                self._ask(hook, id_, role)

        def route(shares: Mapping[str, float]) -> None:
            main = max(shares, key=lambda version: shares[version])
            others = {version: share for version, share in shares.items() if version != main and share}
            weights = {"AdditionalVersionWeights": others}
            client("lambda", role).update_alias(**alias, FunctionVersion=main, RoutingConfig=weights)

        return Rollout(old, new, _policy(group), start=start, route=route, time=self._time)

    def _ask(self, hook: str, deployment: str, role: str) -> None:
        """Call the hook and raise ApiError unless it says Succeeded; one that says nothing is not waited for."""
        execution = str(uuid.uuid4())
        event = {"DeploymentId": deployment, "LifecycleEventHookExecutionId": execution}
        client("lambda", role).invoke(FunctionName=hook, Payload=json.dumps(event))
        if (said := self._said.get(execution, "nothing")) != "Succeeded":
            raise ApiError("HEALTH_CONSTRAINTS", f"The BeforeAllowTraffic hook {hook} said {said}.")


def _policy(group: DeploymentGroup) -> Policy:
    found = _CANARY.fullmatch(str(group.deployment_config_name))
    if found is None:
        raise ApiError("Unsupported", f"{group.deployment_config_name} is not rehearsed: add it to cloud/codedeploy.py")
    events = (group.auto_rollback_configuration or {}).get("events", [])
    alarms = _alarms(group) if "DEPLOYMENT_STOP_ON_ALARM" in events else ()
    return Policy(((int(found[1]) / 100, 60 * int(found[2])), (1.0, 0)), alarms=alarms)


def _alarms(group: DeploymentGroup) -> tuple[str, ...]:
    config: Any = group.alarm_configuration or {}
    return tuple(one["name"] for one in config.get("alarms", [])) if config.get("enabled") else ()


def _update_group(call: Call) -> Response:
    given = call.parameters
    names = (given["applicationName"], given["currentDeploymentGroupName"])
    group = codedeploy_backends[ACCOUNT][REGION].get_deployment_group(*names)
    for member, attribute in _IN_GROUP.items():
        if member in given:
            setattr(group, attribute, given[member])
    return json_answer({})


def _delete_group(call: Call) -> Response:
    groups = codedeploy_backends[ACCOUNT][REGION].deployment_groups.get(call.parameters["applicationName"], {})
    groups.pop(call.parameters["deploymentGroupName"], None)
    return json_answer({})


def _delete_application(call: Call) -> Response:
    codedeploy_backends[ACCOUNT][REGION].applications.pop(call.parameters["applicationName"], None)
    return json_answer({})
