"""The SageMaker pipeline, the roles it needs, and the rule that starts it when a data set has been uploaded."""

import json

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.images import ImagesStack
from stacks.network import NetworkStack
from stacks.permissions import acknowledge, allow, in_account
from stacks.pipeline.definition import pipeline_definition
from stacks.pipeline.requests import Jobs
from stacks.pipeline.roles import job_role, pipeline_role
from stacks.queue import queue


class PipelineStack(cdk.Stack):
    """The pipeline from an uploaded manifest to a registered model."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        data: DataStack,
        images: ImagesStack,
        network: NetworkStack | None,
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: prepare, train, evaluate, register")
        jobs_role = job_role(self, data=data, images=images, network=network)
        jobs = Jobs(
            name=settings.name,
            image=images.training.image_uri,
            role_arn=jobs_role.role_arn,
            bucket=data.bucket.bucket_name,
            key_arn=data.key.key_arn,
            vpc={"SecurityGroupIds": network.group_ids, "Subnets": network.subnet_ids} if network else None,
            settings=settings.training,
        )
        definition = pipeline_definition(
            jobs,
            inference_image=images.inference.image_uri,
            model_group=data.model_package_group_name,
            approval_status=settings.approval_status,
            runtime=settings.hosting.runtime,
        )
        role = pipeline_role(self, settings=settings, data=data, images=images, jobs=jobs, job_role=jobs_role)
        pipeline = sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name=settings.name,
            pipeline_description=_sources(images),
            # Not to_json_string, which writes 0.0 as 0: the parameter's type is Float.
            pipeline_definition={"PipelineDefinitionBody": json.dumps(definition, separators=(",", ":"))},
            role_arn=role.role_arn,
        )
        pipeline.node.add_dependency(role, jobs_role)  # and their policies: CreatePipeline checks them
        self.pipeline_name = settings.name
        # An upload that could not start the pipeline waits here, and Operations raises an alarm.
        self.not_started = queue(self, "NotStarted", last="This queue is where failed events end.")
        self._start_on_upload(pipeline, data)
        cdk.CfnOutput(self, "PipelineName", value=pipeline.ref)
        cdk.CfnOutput(
            self,
            "ManyInstances",
            description="What start-pipeline-execution wants in --pipeline-parameters to train on several instances",
            value=f"Name=InstanceCount,Value={settings.training.multi_instance_count}",
        )

    @property
    def pipeline_arn(self) -> str:
        """Return the pipeline's ARN, made from its literal name."""
        return self.format_arn(service="sagemaker", resource="pipeline", resource_name=self.pipeline_name)

    def grant_operate(self, role: iam.Role) -> None:
        """Allow `role` to start, stop and follow runs, and to read the logs of their jobs."""
        arn = self.pipeline_arn
        allow(role, ["sagemaker:StartPipelineExecution", "sagemaker:ListPipelineExecutions"], [arn])
        actions = ["DescribePipelineExecution", "ListPipelineExecutionSteps", "StopPipelineExecution"]
        allow(role, [f"sagemaker:{action}" for action in actions], [f"{arn}/execution/*"])
        groups = [f"log-group:/aws/sagemaker/{kind}Jobs:*" for kind in ("Training", "Processing")]
        allow(role, ["logs:FilterLogEvents"], [self.format_arn(service="logs", resource=group) for group in groups])
        runs = in_account("sagemaker", f"pipeline/{self.pipeline_name}/execution/*")
        acknowledge(role, "SageMaker makes up the ids of runs and the log streams of jobs.", runs)
        acknowledge(role, "All streams of the jobs' two log groups.", *(in_account("logs", group) for group in groups))

    def _start_on_upload(self, pipeline: sagemaker.CfnPipeline, data: DataStack) -> None:
        arn = self.format_arn(service="sagemaker", resource="pipeline", resource_name=pipeline.ref)
        source = {"StringEquals": {"aws:SourceAccount": self.account}}
        role = iam.Role(self, "StartRole", assumed_by=iam.ServicePrincipal("events.amazonaws.com", conditions=source))
        allow(role, ["sagemaker:StartPipelineExecution"], [arn])
        key = events.CfnRule.SageMakerPipelineParameterProperty(name="DataManifest", value="$.detail.object.key")
        parameters = events.CfnRule.SageMakerPipelineParametersProperty(pipeline_parameter_list=[key])
        rule = events.CfnRule(
            self,
            "Uploaded",
            description="A data set's manifest, which is written last, starts the pipeline",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [data.bucket.bucket_name]},
                    "object": {"key": [{"wildcard": "datasets/*.manifest"}]},
                },
            },
            targets=[
                events.CfnRule.TargetProperty(
                    id="Pipeline",
                    arn=arn,
                    role_arn=role.role_arn,
                    sage_maker_pipeline_parameters=parameters,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=self.not_started.queue_arn),
                )
            ],
        )
        self.not_started.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("events.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.not_started.queue_arn],
                conditions={"ArnEquals": {"aws:SourceArn": rule.attr_arn}},
            )
        )


def _sources(images: ImagesStack) -> str:
    """Say what the images are built from; without it the CLI would skip this stack when only they have changed."""
    return f"Sources of the images: training {images.training.source[:16]}, inference {images.inference.source[:16]}"
