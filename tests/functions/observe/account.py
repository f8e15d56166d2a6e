"""A stage in the embedded AWS whose events are given to the observe function by hand."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.sns.models import sns_backends

from observe.handler import handler
from observe.records import Entry
from tests.contracts import validate
from tests.functions.fakes import Context
from tests.rehearsal.cloud.test_stacks import ROLE, hosting, package
from tests.rehearsal.cloud.world import World

GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kennel-dev"
ALARM = {
    "Namespace": "AWS/SageMaker",
    "MetricName": "ModelLatency",
    "Statistic": "Average",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 1,
    "ComparisonOperator": "GreaterThanThreshold",
}
TEMPLATE = hosting("kennel-dev")
TEMPLATE["Resources"]["Rollback"] = {"Type": "AWS::CloudWatch::Alarm", "Properties": ALARM}
TEMPLATE["Outputs"]["RollbackAlarmArns"] = {"Value": {"Fn::GetAtt": ["Rollback", "Arn"]}}
# Events have whole seconds; these lie after everything that a test does.
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


class Account:
    """A stage with a hosting stack; events are made as AWS documents them and given to the function by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sagemaker, self.s3 = world.cloud.client("sagemaker"), world.cloud.client("s3")
        self.sagemaker.create_model_package_group(ModelPackageGroupName="kennel-dev")
        self.s3.create_bucket(Bucket="records")
        self.topic = world.cloud.client("sns").create_topic(Name="alarms")["TopicArn"]
        world.role("endpoint")
        world.create("Hosting", TEMPLATE)
        self.at = LATER

    def version(self, artifact: str = "good.tar.gz") -> int:
        """Register an approved version and let the function hear of it."""
        version = int(package(self.world, artifact).rpartition("/")[2])
        self.hear(self.changed(version))
        return version

    def changed(self, version: int, *fields: str) -> dict[str, Any]:
        """The event of a package that was changed just now, or made if no fields are given."""
        about = self.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{version}")
        names = ("ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageStatus")
        detail = {name: about[name] for name in (*names, "ModelApprovalStatus")}
        detail["LastModifiedTime"] = about["LastModifiedTime"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if fields:
            detail["UpdatedModelPackageFields"] = list(fields)
        return self.event("SageMaker Model Package State Change", detail)

    def release(self, version: int, token: str = "") -> str:
        """Update the stack as promote does, for an approval that no other comes after, and return the token."""
        token = token or f"release-{version}-99991130163005000"
        given = [{"ParameterKey": "ModelPackageArn", "ParameterValue": f"{GROUP}/{version}"}]
        self.world.cloud.client("cloudformation").update_stack(
            StackName="Hosting", UsePreviousTemplate=True, Parameters=given, ClientRequestToken=token
        )
        self.world.wait("Hosting")
        return token

    def status(self, token: str, status: str = "") -> dict[str, Any]:
        """The event of a status of the stack; without `status` of the one that it has."""
        stack = self.world.stack("Hosting")
        status = status or stack["StackStatus"]
        detail = {"stack-id": stack["StackId"], "status-details": {"status": status, "status-reason": ""}}
        return self.event("CloudFormation Stack Status Change", {**detail, "client-request-token": token})

    def event(self, kind: str, detail: dict[str, Any]) -> dict[str, Any]:
        self.at += timedelta(seconds=1)
        return {"detail-type": kind, "time": f"{self.at:%Y-%m-%dT%H:%M:%SZ}", "detail": detail}

    def hear(self, event: dict[str, Any]) -> str:
        return str(handler(event, Context())["action"])

    def live(self, artifact: str = "good.tar.gz") -> int:
        """Release a new version that works."""
        version = self.version(artifact)
        assert self.hear(self.status(self.release(version))) == "recorded"
        return version

    def roll_back_unseen(self) -> None:
        """What SageMaker does by itself: the endpoint serves another configuration than the stack says."""
        model = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
        self.sagemaker.create_model(ModelName="old", ExecutionRoleArn=ROLE, PrimaryContainer=model)
        variant = {"VariantName": "A", "ModelName": "old", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName="old", ProductionVariants=[variant])
        self.sagemaker.update_endpoint(EndpointName="kennel-dev", EndpointConfigName="old")
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="kennel-dev", WaiterConfig={"Delay": 0})

    def records(self) -> list[dict[str, Any]]:
        """Every record in the order of time, each checked against its schema and its key."""
        found = []
        for entry, key in sorted((Entry.of(key), key) for key in self.keys()):
            record = json.loads(self.s3.get_object(Bucket="records", Key=key)["Body"].read())
            validate("release", record)
            assert entry and (entry.version, entry.state) == (record["version"], record["state"])
            found.append(record)
        return found

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket="records").get("Contents", [])]

    def states(self) -> list[tuple[int, str]]:
        return [(one["version"], one["state"]) for one in self.records()]

    def about(self, version: int) -> tuple[str, str]:
        """Approval and life cycle in the registry."""
        found = self.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{version}")
        return found["ModelApprovalStatus"], found.get("ModelLifeCycle", {}).get("StageStatus", "")

    @property
    def told(self) -> list[str]:
        """The subjects of the messages."""
        sent = sns_backends["123456789012"]["us-east-1"].topics[self.topic].sent_notifications
        return [str(subject) for _, _, subject, *_ in sent]
