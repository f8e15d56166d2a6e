"""The role of the pipeline itself: it may start isolated, encrypted jobs of the allowed types, as the job role."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.images import ImagesStack
from stacks.job_role import sagemaker_principal
from stacks.pipeline_jobs import Jobs


def pipeline_role(
    scope: Construct, *, settings: StageSettings, data: DataStack, images: ImagesStack, jobs: Jobs, job_role: iam.Role
) -> iam.Role:
    """Starts jobs, passes them the job role, registers models in one group."""
    role = iam.Role(scope, "PipelineRole", assumed_by=sagemaker_principal(scope), description="Runs the pipeline")
    _start_jobs(role, settings, jobs)
    job_role.grant_pass_role(role).assert_success()
    _register_models(role, settings)
    images.inference.grant_pull(role)  # CreateModelPackage looks the image up
    role.add_to_policy(  # the gate reads evaluation.json, CreateModelPackage the model
        iam.PolicyStatement(actions=["s3:GetObject"], resources=[data.bucket.arn_for_objects("runs/*")])
    )
    role.add_to_policy(iam.PolicyStatement(actions=["s3:ListBucket"], resources=[data.bucket.bucket_arn]))
    role.add_to_policy(iam.PolicyStatement(actions=["kms:Decrypt", "kms:DescribeKey"], resources=[data.key.key_arn]))
    return role


def _arn(role: iam.Role, kind: str, name: str = "*") -> str:
    return cdk.Stack.of(role).format_arn(service="sagemaker", resource=kind, resource_name=name)


def _start_jobs(role: iam.Role, settings: StageSettings, jobs: Jobs) -> None:
    kinds = ("processing-job", "training-job", "hyper-parameter-tuning-job")
    arns = [_arn(role, kind) for kind in kinds]
    create = ["sagemaker:CreateProcessingJob", "sagemaker:CreateTrainingJob", "sagemaker:CreateHyperParameterTuningJob"]
    types = sorted({*settings.training.instance_types, settings.training.processing_instance_type})
    conditions: dict[str, dict[str, object]] = {
        "Bool": {"sagemaker:NetworkIsolation": "true", "sagemaker:InterContainerTrafficEncryption": "true"},
        "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": types},
        "Null": {"sagemaker:InstanceTypes": "false"},  # ForAllValues alone also lets a request without types through
        "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": settings.training.max_runtime_hours * 3600},
    }
    if settings.training.volume_key:
        conditions["ArnEquals"] = {"sagemaker:VolumeKmsKey": jobs.key_arn}
    role.add_to_policy(iam.PolicyStatement(actions=create, resources=arns, conditions=conditions))
    watch = [f"sagemaker:{verb}{kind}Job" for verb in ("Describe", "Stop") for kind in _KINDS]
    follow = ["sagemaker:AddTags", "sagemaker:ListTrainingJobsForHyperParameterTuningJob"]
    role.add_to_policy(iam.PolicyStatement(actions=watch + follow, resources=arns))


_KINDS = ("Processing", "Training", "HyperParameterTuning")


def _register_models(role: iam.Role, settings: StageSettings) -> None:
    arns = [
        _arn(role, "model-package-group", settings.name),
        _arn(role, "model-package", f"{settings.name}/*"),
    ]
    actions = ["CreateModelPackage", "DescribeModelPackage", "DescribeModelPackageGroup", "AddTags"]
    role.add_to_policy(iam.PolicyStatement(actions=[f"sagemaker:{action}" for action in actions], resources=arns))
