"""Where people work on the stage's data: a notebook, and an EC2 instance that trains."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.hosting.stack import HostingStack
from stacks.images import ImagesStack
from stacks.network import NetworkStack
from stacks.pipeline.stack import PipelineStack
from stacks.workbench.notebook import Notebook
from stacks.workbench.trainer import Trainer


class WorkbenchStack(cdk.Stack):
    """Notebook and trainer, both in the VPC's first isolated subnet, where the interface endpoints are."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        data: DataStack,
        images: ImagesStack,
        network: NetworkStack,
        pipeline: PipelineStack,
        hosting: HostingStack,
        classify: ClassifyStack,
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: notebook and EC2 training launcher")
        assert settings.workbench is not None
        subnet = network.vpc.isolated_subnets[0]
        group = self._outbound_only(network)
        notebook = Notebook(
            self,
            "Notebook",
            settings=settings.workbench,
            data=data,
            pipeline=pipeline,
            hosting=hosting,
            classify=classify,
            subnet=subnet,
            security_group=group,
        )
        trainer = Trainer(
            self, "Trainer", settings=settings, data=data, images=images, subnet=subnet, security_group=group
        )
        cdk.CfnOutput(self, "NotebookName", value=notebook.name)
        # $Latest: CloudFormation leaves the template's default version at the first, with the first image.
        launch = f"--launch-template 'LaunchTemplateId={trainer.template_id},Version=$Latest'"
        cdk.CfnOutput(
            self,
            "TrainOnEc2",
            description="Starts a training instance; its tags say what it trains (user_data/trainer_run.sh)",
            value=f"aws ec2 run-instances --region {self.region} {launch}",
        )

    def _outbound_only(self, network: NetworkStack) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "Outbound",
            vpc=network.vpc,
            description="Workbench: nothing comes in, HTTPS goes out",
            allow_all_outbound=False,
        )
        # The subnets have no route but to S3 and the interface endpoints, so "anywhere" is those.
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3 and interface endpoints")
        return group
