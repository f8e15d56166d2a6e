"""By which operations each resource type is read back, and what is held without being enacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kennel.rehearsal.cloud.sagemaker.resources import ACCOUNT

Read = tuple[str, str, Callable[[str, dict[str, Any]], dict[str, Any]]]


def _by(member: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """The physical id is the one parameter."""
    return lambda physical, _: {member: physical}


def _in_list(member: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    return lambda physical, _: {member: [physical]}


def _of(member: str, name: str = "") -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A property is the one parameter."""
    return lambda _, wanted: {member: wanted[name or member]}


def _sagemaker(noun: str, operation: str) -> list[Read]:
    name = f"{noun}Name"
    return [("sagemaker", operation, lambda physical, wanted: {name: wanted.get(name, physical.rpartition("/")[2])})]


def _policy(physical: str, wanted: dict[str, Any]) -> dict[str, Any]:
    return {"RoleName": wanted["Roles"][0], "PolicyName": wanted["PolicyName"]}


def _queue(_physical: str, wanted: dict[str, Any]) -> dict[str, Any]:
    return {"QueueUrl": wanted["Queues"][0], "AttributeNames": ["All"]}


def _scaling(_physical: str, _wanted: dict[str, Any]) -> dict[str, Any]:
    return {"ServiceNamespace": "sagemaker"}


def _of_api(member: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    return lambda physical, wanted: {"ApiId": wanted["ApiId"], member: physical}


def _alias(_physical: str, wanted: dict[str, Any]) -> dict[str, Any]:
    return {"FunctionName": wanted["FunctionName"], "Name": wanted["Name"]}


def _event_config(_physical: str, wanted: dict[str, Any]) -> dict[str, Any]:
    return {"FunctionName": wanted["FunctionName"], "Qualifier": wanted["Qualifier"]}


def _launch_template(physical: str, _wanted: dict[str, Any]) -> dict[str, Any]:
    return {"LaunchTemplateId": physical, "Versions": ["$Latest"]}


def _everything(_physical: str, _wanted: dict[str, Any]) -> dict[str, Any]:
    return {}


_BUCKET = [
    "get_bucket_versioning",
    "get_bucket_encryption",
    "get_bucket_logging",
    "get_bucket_tagging",
    "get_public_access_block",
    "get_bucket_lifecycle_configuration",
    "get_bucket_notification_configuration",
]

READS: dict[str, list[Read]] = {
    "AWS::ApiGatewayV2::Api": [("apigatewayv2", "get_api", _by("ApiId"))],
    "AWS::ApiGatewayV2::Integration": [("apigatewayv2", "get_integration", _of_api("IntegrationId"))],
    "AWS::ApiGatewayV2::Route": [("apigatewayv2", "get_route", _of_api("RouteId"))],
    "AWS::ApiGatewayV2::Stage": [("apigatewayv2", "get_stage", _of_api("StageName"))],
    "AWS::ApplicationAutoScaling::ScalableTarget": [
        ("application-autoscaling", operation, _scaling)
        for operation in ("describe_scalable_targets", "describe_scheduled_actions")
    ],
    "AWS::ApplicationAutoScaling::ScalingPolicy": [("application-autoscaling", "describe_scaling_policies", _scaling)],
    "AWS::Budgets::Budget": [
        ("budgets", operation, lambda name, _: {"AccountId": ACCOUNT, "BudgetName": name})
        for operation in ("describe_budget", "describe_notifications_for_budget")
    ],
    "AWS::CloudWatch::Alarm": [("cloudwatch", "describe_alarms", _in_list("AlarmNames"))],
    "AWS::CloudWatch::Dashboard": [("cloudwatch", "get_dashboard", _by("DashboardName"))],
    "AWS::CodeBuild::Project": [("codebuild", "batch_get_projects", _in_list("names"))],
    "AWS::EC2::FlowLog": [("ec2", "describe_flow_logs", _in_list("FlowLogIds"))],
    "AWS::EC2::LaunchTemplate": [("ec2", "describe_launch_template_versions", _launch_template)],
    "AWS::EC2::RouteTable": [("ec2", "describe_route_tables", _in_list("RouteTableIds"))],
    "AWS::EC2::SecurityGroup": [("ec2", "describe_security_groups", _in_list("GroupIds"))],
    "AWS::EC2::SecurityGroupEgress": [("ec2", "describe_security_group_rules", _everything)],
    "AWS::EC2::SecurityGroupIngress": [("ec2", "describe_security_group_rules", _everything)],
    "AWS::EC2::Subnet": [("ec2", "describe_subnets", _in_list("SubnetIds"))],
    "AWS::EC2::SubnetRouteTableAssociation": [("ec2", "describe_route_tables", _everything)],
    "AWS::EC2::VPC": [
        ("ec2", "describe_vpcs", _in_list("VpcIds")),
        *(
            ("ec2", "describe_vpc_attribute", lambda vpc, _, name=name: {"VpcId": vpc, "Attribute": name})
            for name in ("enableDnsSupport", "enableDnsHostnames")
        ),
    ],
    "AWS::EC2::VPCEndpoint": [("ec2", "describe_vpc_endpoints", _in_list("VpcEndpointIds"))],
    "AWS::ECR::Repository": [
        ("ecr", "describe_repositories", _in_list("repositoryNames")),
        ("ecr", "get_lifecycle_policy", _by("repositoryName")),
    ],
    "AWS::Events::Rule": [
        ("events", "describe_rule", lambda physical, _: {"Name": physical.rpartition("/")[2]}),
        ("events", "list_targets_by_rule", lambda physical, _: {"Rule": physical.rpartition("/")[2]}),
    ],
    "AWS::IAM::InstanceProfile": [("iam", "get_instance_profile", _by("InstanceProfileName"))],
    "AWS::IAM::Policy": [("iam", "get_role_policy", _policy)],
    "AWS::IAM::Role": [("iam", "get_role", _by("RoleName")), ("iam", "list_attached_role_policies", _by("RoleName"))],
    "AWS::KMS::Key": [
        ("kms", "describe_key", _by("KeyId")),
        ("kms", "get_key_rotation_status", _by("KeyId")),
        ("kms", "get_key_policy", lambda key, _: {"KeyId": key, "PolicyName": "default"}),
    ],
    "AWS::Lambda::Alias": [("lambda", "get_alias", _alias)],
    "AWS::Lambda::EventInvokeConfig": [("lambda", "get_function_event_invoke_config", _event_config)],
    "AWS::Lambda::Function": [("lambda", "get_function", _by("FunctionName"))],
    "AWS::Lambda::Permission": [("lambda", "get_policy", _of("FunctionName"))],
    "AWS::Lambda::Version": [("lambda", "get_function_configuration", _by("FunctionName"))],
    "AWS::Logs::LogGroup": [("logs", "describe_log_groups", _by("logGroupNamePrefix"))],
    "AWS::S3::Bucket": [("s3", operation, _by("Bucket")) for operation in _BUCKET],
    "AWS::S3::BucketPolicy": [("s3", "get_bucket_policy", _by("Bucket"))],
    "AWS::SNS::Topic": [("sns", "get_topic_attributes", _by("TopicArn"))],
    "AWS::SNS::TopicPolicy": [("sns", "get_topic_attributes", lambda _, wanted: {"TopicArn": wanted["Topics"][0]})],
    "AWS::SQS::Queue": [("sqs", "get_queue_attributes", lambda url, _: {"QueueUrl": url, "AttributeNames": ["All"]})],
    "AWS::SQS::QueuePolicy": [("sqs", "get_queue_attributes", _queue)],
    "AWS::SageMaker::Endpoint": _sagemaker("Endpoint", "describe_endpoint"),
    "AWS::SageMaker::EndpointConfig": _sagemaker("EndpointConfig", "describe_endpoint_config"),
    "AWS::SageMaker::Model": _sagemaker("Model", "describe_model"),
    "AWS::SageMaker::ModelPackageGroup": _sagemaker("ModelPackageGroup", "describe_model_package_group"),
    "AWS::SageMaker::NotebookInstance": _sagemaker("NotebookInstance", "describe_notebook_instance"),
    "AWS::SageMaker::NotebookInstanceLifecycleConfig": _sagemaker(
        "NotebookInstanceLifecycleConfig", "describe_notebook_instance_lifecycle_config"
    ),
    "AWS::SageMaker::Pipeline": _sagemaker("Pipeline", "describe_pipeline"),
}

# CloudFormation's property: the API's member, both in lower case.
ALIASES = {
    "destinationbucketname": "targetbucket",
    "enablekeyrotation": "keyrotationenabled",
    "eventbridgeenabled": "eventbridgeconfiguration",
    "expirationindays": "days",
    "groupdescription": "description",
    "lifecycleconfigname": "notebookinstancelifecycleconfigname",
    "logfileprefix": "targetprefix",
    "principal": "service",
    "securitygroupids": "securitygroups",
    "transitionindays": "days",
}

# What AWS itself does not answer either: where code came from, and what only CloudFormation looks at.
# (EventBridge on a bucket is the exception: moto holds it without showing it, and our bus enacts it.)
NEVER_SHOWN = {
    "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled",
    "RetainAllVariantProperties",
    "ScalingTargetId",
    "Code.S3Bucket",
    "Code.S3Key",
    "Code.ZipFile",
    "EmptyOnDelete",
    "ResourceType",
    "UserData",
}

NOT_ENACTED = {
    "AWS::ApplicationAutoScaling::ScalingPolicy": "held, not enacted: the number of servers stays",
    "AWS::ApplicationAutoScaling::ScalableTarget": "held, not enacted: the number of servers stays",
    "AWS::CloudWatch::Alarm": "held, not evaluated",
    "AWS::Budgets::Budget": "held, not evaluated: nothing costs",
    "AWS::CodeBuild::Project": "held, never run: see the image builds",
    "AWS::ApiGatewayV2::Api": "held, not served: the function is invoked directly",
    "AWS::S3::BucketPolicy": "its Deny statements are evaluated for roles; loopback stands for TLS",
    "AWS::SageMaker::Endpoint": "served by one process an instance; guardrails and shifting of traffic are not enacted",
    "AWS::SageMaker::NotebookInstance": "held, not started",
    "AWS::EC2::VPC": "held, not enacted: jobs and servers run on this machine",
    "AWS::EC2::LaunchTemplate": "held, never launched",
    "AWS::KMS::Key": "held; nothing is encrypted, but S3's use of the key is checked against each role",
}
