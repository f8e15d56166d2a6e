"""One stage: its stacks, and what each takes from those before it."""

import aws_cdk as cdk
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.hosting.stack import HostingStack
from stacks.images import ImagesStack
from stacks.network import NetworkStack
from stacks.operations.stack import OperationsStack
from stacks.pipeline.stack import PipelineStack
from stacks.release import ReleaseStack
from stacks.workbench.stack import WorkbenchStack


class KennelStage(cdk.Stage):
    """All stacks of one stage, named `<stack_prefix>-<id>-<stack>`; no construct path or logical id has the prefix."""

    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings) -> None:
        super().__init__(scope, id_, stage_name=f"{settings.stack_prefix}-{id_}")
        data = DataStack(self, "Data", settings=settings)
        network = NetworkStack(self, "Network", settings=settings) if settings.network else None
        images = ImagesStack(self, "Images", settings=settings)
        pipeline = PipelineStack(self, "Pipeline", settings=settings, data=data, images=images, network=network)
        hosting = HostingStack(self, "Hosting", settings=settings, data=data, images=images, network=network)
        classify = ClassifyStack(self, "Classify", settings=settings, data=data, hosting=hosting)
        release = ReleaseStack(self, "Release", settings=settings, data=data, hosting=hosting)
        OperationsStack(
            self,
            "Operations",
            settings=settings,
            hosting=hosting,
            classify=classify,
            release=release,
            pipeline=pipeline,
            data=data,
        )
        if network and settings.workbench:
            WorkbenchStack(
                self,
                "Workbench",
                settings=settings,
                data=data,
                images=images,
                network=network,
                pipeline=pipeline,
                hosting=hosting,
                classify=classify,
            )
        # Tags of a stack reach all its resources that take tags, without a copy in every one of them.
        cdk.Tags.of(self).add("kennel:stage", id_, include_resource_types=["aws:cdk:stack"])
