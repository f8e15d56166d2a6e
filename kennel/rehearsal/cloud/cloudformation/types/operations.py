"""What watches, pays, builds and queues."""

from __future__ import annotations

import json

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, tag_map
from kennel.rehearsal.cloud.sagemaker.resources import ACCOUNT, REGION


def _alarm_arn(made: Made) -> str:
    return f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{made.physical}"


def _budget(properties: Properties) -> Properties:
    budget = {"BudgetName": properties["BudgetName"], **properties["Budget"]}
    rest = {key: value for key, value in properties.items() if key not in ("Budget", "BudgetName")}
    return {"AccountId": ACCOUNT, "Budget": budget, **rest}


def _topic_policy(made: Made) -> None:
    document = json.dumps(made.wanted["PolicyDocument"])
    for topic in made.wanted["Topics"]:
        admin("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=document)


def _queue_policy(made: Made) -> None:
    document = json.dumps(made.wanted["PolicyDocument"])
    for queue in made.wanted["Queues"]:
        admin("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})


def _nothing(_properties: Properties) -> Properties:
    return {}


def _dashboard(properties: Properties) -> Properties:
    body = properties["DashboardBody"]
    return {**properties, "DashboardBody": body if isinstance(body, str) else json.dumps(body)}


def _repository(properties: Properties) -> Properties:
    """A generated name in lower case, which alone ECR takes."""
    taken = {key: properties[key] for key in _REPOSITORY if key in properties}
    return {**taken, "RepositoryName": properties["RepositoryName"].lower()}


_REPOSITORY = ("ImageScanningConfiguration", "ImageTagMutability", "EncryptionConfiguration", "Tags")


def _expire_images(made: Made) -> None:
    if text := made.wanted.get("LifecyclePolicy", {}).get("LifecyclePolicyText"):
        admin("ecr").put_lifecycle_policy(repositoryName=made.physical, lifecyclePolicyText=text)


def _project(properties: Properties) -> Properties:
    """moto asks for a location of a source that is none."""
    return {**properties, "Source": {"Location": "none", **properties["Source"]}}


def _rotate(made: Made) -> None:
    if str(made.wanted.get("EnableKeyRotation", "")).lower() == "true":
        admin("kms").enable_key_rotation(KeyId=made.physical)


def _key(properties: Properties) -> Properties:
    policy = {"Policy": json.dumps(properties["KeyPolicy"])} if "KeyPolicy" in properties else {}
    tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.get("Tags", [])]
    taken: Properties = {
        key: properties[key] for key in ("Description", "KeySpec", "KeyUsage", "MultiRegion") if key in properties
    }
    return {**taken, **policy, "Tags": tags}


def _retain(made: Made) -> None:
    if days := made.wanted.get("RetentionInDays"):
        admin("logs").put_retention_policy(logGroupName=made.physical, retentionInDays=int(days))


def _log_group(properties: Properties) -> Properties:
    return tag_map({key: value for key, value in properties.items() if key != "RetentionInDays"})


ROWS = [
    Row(
        type="AWS::Logs::LogGroup",
        service="logs",
        create="CreateLogGroup",
        name="LogGroupName",
        shape=_log_group,
        ref=lambda made: str(made.wanted["LogGroupName"]),
        # With the star that moto leaves out: policies rely on it to reach the group's streams.
        attributes={"Arn": lambda made: f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{made.physical}:*"},
        after=_retain,
        delete=lambda made: admin("logs").delete_log_group(logGroupName=made.physical),
    ),
    Row(
        type="AWS::KMS::Key",
        service="kms",
        create="CreateKey",
        shape=_key,
        ref=lambda made: str(made.answer["KeyMetadata"]["KeyId"]),
        attributes={
            "Arn": lambda made: str(made.answer["KeyMetadata"]["Arn"]),
            "KeyId": lambda made: str(made.answer["KeyMetadata"]["KeyId"]),
        },
        after=_rotate,
        delete=lambda made: admin("kms").schedule_key_deletion(KeyId=made.physical, PendingWindowInDays=7),
    ),
    Row(
        type="AWS::ECR::Repository",
        service="ecr",
        create="CreateRepository",
        name="RepositoryName",
        shape=_repository,
        ref=lambda made: str(made.answer["repository"]["repositoryName"]),
        attributes={
            "Arn": lambda made: str(made.answer["repository"]["repositoryArn"]),
            "RepositoryUri": lambda made: str(made.answer["repository"]["repositoryUri"]),
        },
        after=_expire_images,
        delete=lambda made: admin("ecr").delete_repository(repositoryName=made.physical, force=True),
    ),
    Row(
        type="AWS::CloudWatch::Alarm",
        service="cloudwatch",
        create="PutMetricAlarm",
        name="AlarmName",
        ref=lambda made: str(made.wanted["AlarmName"]),
        attributes={"Arn": _alarm_arn},
        delete=lambda made: admin("cloudwatch").delete_alarms(AlarmNames=[made.physical]),
    ),
    Row(
        type="AWS::CloudWatch::Dashboard",
        service="cloudwatch",
        create="PutDashboard",
        name="DashboardName",
        shape=_dashboard,
        ref=lambda made: str(made.wanted["DashboardName"]),
        delete=lambda made: admin("cloudwatch").delete_dashboards(DashboardNames=[made.physical]),
    ),
    Row(
        type="AWS::Budgets::Budget",
        service="budgets",
        create="CreateBudget",
        name="BudgetName",
        shape=_budget,
        ref=lambda made: str(made.wanted["Budget"].get("BudgetName", made.wanted["BudgetName"])),
        delete=lambda made: admin("budgets").delete_budget(AccountId=ACCOUNT, BudgetName=made.physical),
    ),
    Row(
        type="AWS::CodeBuild::Project",
        service="codebuild",
        create="CreateProject",
        name="Name",
        shape=_project,
        ref=lambda made: str(made.answer["project"]["name"]),
        attributes={"Arn": lambda made: str(made.answer["project"]["arn"])},
        delete=lambda made: admin("codebuild").delete_project(name=made.physical),
    ),
    Row(
        type="AWS::SNS::TopicPolicy",
        service="sts",
        create="GetCallerIdentity",
        shape=_nothing,
        ref=lambda made: f"topic-policy-{made.wanted['Topics'][0]}",
        after=_topic_policy,
    ),
    Row(
        type="AWS::SQS::QueuePolicy",
        service="sts",
        create="GetCallerIdentity",
        shape=_nothing,
        ref=lambda made: f"queue-policy-{made.wanted['Queues'][0]}",
        after=_queue_policy,
    ),
]
