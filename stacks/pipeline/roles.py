"""The pipeline's two roles: its own, which may start isolated, encrypted jobs of the allowed types, and the jobs'."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.images import ImagesStack
from stacks.network import NetworkStack
from stacks.permissions import (
    acknowledge,
    allow,
    allow_key,
    allow_logs_and_metrics,
    any_object,
    in_account,
    model_packages,
    sagemaker_principal,
    via_s3,
    wildcard,
)
from stacks.pipeline.requests import Jobs

_KINDS = ("Processing", "Training", "HyperParameterTuning")
_JOBS = ("processing-job", "training-job", "hyper-parameter-tuning-job")

_PREPARE = "prepared/*/report/"


def pipeline_role(
    scope: Construct, *, settings: StageSettings, data: DataStack, images: ImagesStack, jobs: Jobs, job_role: iam.Role
) -> iam.Role:
    """Return the role that starts jobs, passes them the job role and registers models in one group."""
    role = iam.Role(scope, "PipelineRole", assumed_by=sagemaker_principal(scope), description="Runs the pipeline")
    _start_jobs(role, settings, jobs)
    to_jobs = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    allow(role, ["iam:PassRole"], [job_role.role_arn], to_jobs)
    register = ["CreateModelPackage", "DescribeModelPackage", "DescribeModelPackageGroup", "AddTags"]
    allow(role, [f"sagemaker:{action}" for action in register], [*model_packages(role, settings.name)])
    images.inference.grant_pull(role)  # CreateModelPackage looks the image up
    # The conditions read prepare.json and evaluation.json, CreateModelPackage the model.
    read = (_PREPARE, "runs/")
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects(f"{prefix}*") for prefix in read])
    allow(role, ["s3:ListBucket"], [data.bucket.bucket_arn])
    allow(role, ["kms:Decrypt"], [data.key.key_arn], via_s3())
    reason = "Uploads name what Prepare reports on, SageMaker makes up the names of artifacts."
    acknowledge(role, reason, *(any_object(data, prefix) for prefix in read))
    acknowledge(role, "ECR's GetAuthorizationToken knows no resource.", wildcard("*"))
    return role


def _start_jobs(role: iam.Role, settings: StageSettings, jobs: Jobs) -> None:
    stack = cdk.Stack.of(role)
    arns = [stack.format_arn(service="sagemaker", resource=job, resource_name="*") for job in _JOBS]
    allow(role, [f"sagemaker:Create{kind}Job" for kind in _KINDS], arns, _limits(settings, jobs))
    watch = [f"sagemaker:{verb}{kind}Job" for verb in ("Describe", "Stop") for kind in _KINDS]
    follow = ["sagemaker:AddTags", "sagemaker:ListTrainingJobsForHyperParameterTuningJob"]
    allow(role, watch + follow, arns)
    reason = "SageMaker makes up the names of a pipeline's jobs; conditions hold their types, network and keys."
    acknowledge(role, reason, *(in_account("sagemaker", f"{job}/*") for job in _JOBS))


def _limits(settings: StageSettings, jobs: Jobs) -> dict[str, object]:
    """Return the conditions that a job must meet for the pipeline to start it."""
    types = sorted({*settings.training.instance_types, settings.training.processing_instance_type})
    listed: dict[str, object] = {"sagemaker:InstanceTypes": types}
    if jobs.vpc:
        listed["sagemaker:VpcSubnets"] = jobs.vpc["Subnets"]
        listed["sagemaker:VpcSecurityGroupIds"] = jobs.vpc["SecurityGroupIds"]
    keys = {"sagemaker:OutputKmsKey": jobs.key_arn}
    if settings.training.volume_key:
        keys["sagemaker:VolumeKmsKey"] = jobs.key_arn
    return {
        "Bool": {"sagemaker:NetworkIsolation": "true", "sagemaker:InterContainerTrafficEncryption": "true"},
        "ForAllValues:StringEquals": listed,
        "Null": dict.fromkeys(listed, "false"),  # ForAllValues alone also lets a request without the key through
        "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": settings.training.max_runtime_hours * 3600},
        "ArnEquals": keys,
    }


_MADE = ("prepared/", "runs/")
_CHECKPOINTS = "runs/*/checkpoints/"


def job_role(scope: Construct, *, data: DataStack, images: ImagesStack, network: NetworkStack | None) -> iam.Role:
    """Return the role of the jobs: it reads data sets, and reads and writes what jobs make."""
    role = iam.Role(scope, "JobRole", assumed_by=sagemaker_principal(scope), description="Runs the pipeline's jobs")
    images.training.grant_pull(role)
    _use_data(role, data)
    allow_key(role, data.key)
    reason = "SageMaker names the log groups and streams of its jobs."
    allow_logs_and_metrics(role, "log-group:/aws/sagemaker/*", reason, create_group=True)
    if network:
        network.grant_attach(role)
    acknowledge(role, "PutMetricData, EC2's Describe and GetAuthorizationToken know no resource.", wildcard("*"))
    return role


def _use_data(role: iam.Role, data: DataStack) -> None:
    bucket = data.bucket
    allow(role, ["s3:ListBucket", "s3:GetBucketLocation"], [bucket.bucket_arn])
    allow(role, ["s3:GetObject"], [bucket.arn_for_objects(f"{prefix}*") for prefix in ("datasets/", *_MADE)])
    made = [bucket.arn_for_objects(f"{prefix}*") for prefix in _MADE]
    allow(role, ["s3:PutObject", "s3:AbortMultipartUpload"], made)
    # SageMaker mirrors the folder of checkpoints: what the job has pruned goes from the bucket too.
    allow(role, ["s3:DeleteObject"], [bucket.arn_for_objects(f"{_CHECKPOINTS}*")])
    reason = "Uploads, runs and executions name what lies under these prefixes."
    acknowledge(role, reason, *(any_object(data, prefix) for prefix in ("datasets/", *_MADE, _CHECKPOINTS)))
