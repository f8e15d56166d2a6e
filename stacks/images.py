"""The container images; CodeBuild builds them in the account during deployment, so nobody needs Docker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as s3_assets
from cdklabs.deploy_time_build import ContainerImageBuild
from constructs import Construct

from stacks.config import StageSettings
from stacks.instance_types import is_graviton
from stacks.permissions import acknowledge, in_account, wildcard

_ROOT = Path(__file__).parent.parent


class Image(Construct):
    """One image from `folder`: `image_uri`, `source`, and `grant_pull` for the role that runs it.

    `source` is a hash over what the image is built from. The URI is read when a consumer's stack is updated, and the
    CLI skips a stack whose text is unchanged: so `source` stands in the text of whatever runs the image.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        folder: str,
        settings: StageSettings,
        platform: assets.Platform = assets.Platform.LINUX_AMD64,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, id_)
        self._repository = ecr.Repository(
            self,
            "Repository",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,  # each build makes up a tag of its own
            lifecycle_rules=[ecr.LifecycleRule(description="Keep the last 100 images", max_image_count=100)],
            removal_policy=settings.removal_policy,
            empty_on_delete=settings.removable,
        )
        self._build = ContainerImageBuild(
            self,
            "Build",
            directory=str(_ROOT / folder),
            exclude=["**/__pycache__", "**/*.pyc", "**/.*_cache"],  # running the tests must not change the image
            platform=platform,
            build_args=arguments,
            repository=self._repository,
        )
        source = self._build.node.find_child("Source")
        assert isinstance(source, s3_assets.Asset)
        self.source = source.asset_hash
        # One output that holds the whole URI; by itself CDK would export the repository's ARN, for every consumer to
        # take apart, and the tag. Weak, since the tag changes with each build.
        stack, name = cdk.Stack.of(self), f"{id_}ImageUri"
        cdk.CfnOutput(stack, name, value=self._build.image_uri)
        self.image_uri = cdk.Fn.get_stack_output(stack.stack_name, name)

    def build_after(self, other: "Image") -> None:
        """Build this image when `other` is built: a new account may run one build at a time."""
        self._build.node.find_child("Resource").node.add_dependency(other._build.node.find_child("Resource"))

    def grant_pull(self, role: iam.IGrantable) -> iam.Grant:
        return self._repository.grant_pull(role)


class ImagesStack(cdk.Stack):
    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: images of training and inference")
        # The build helper's log group would race with the function that writes to it, and be kept in every stage.
        self.node.set_context("@aws-cdk/aws-lambda:useCdkManagedLogGroup", False)
        self.training = Image(self, "Training", folder="training", settings=settings)
        arm = is_graviton(settings.hosting.instance_type)
        self.inference = Image(
            self,
            "Inference",
            folder="inference",
            settings=settings,
            platform=assets.Platform.LINUX_ARM64 if arm else assets.Platform.LINUX_AMD64,
            arguments={"RUNTIME": settings.hosting.runtime},
        )
        self.inference.build_after(self.training)
        for project in self.node.find_all():
            if isinstance(project, codebuild.CfnProject):  # Small has 64 GB of disk, too little for two GPU images
                project.add_property_override("Environment.ComputeType", "BUILD_GENERAL1_MEDIUM")
        self._acknowledge([_AMD64, *([_ARM64] if arm else [])])

    def _acknowledge(self, projects: Sequence[str]) -> None:
        managed = "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{}]".format
        acknowledge(
            self,
            "The roles of cdklabs.deploy-time-build: reading public.ecr.aws, writing logs; neither is FullAccess.",
            managed("AmazonElasticContainerRegistryPublicReadOnly"),
            managed("service-role/AWSLambdaBasicExecutionRole"),
        )
        acknowledge(self, "Its trigger names the newest Node runtime that it was tested with.", "AwsSolutions-L1")
        acknowledge(self, "The build writes no artifact but the image, which ECR encrypts.", "AwsSolutions-CB4")
        acknowledge(self, "ECR's GetAuthorizationToken knows no resource.", wildcard("*"))
        acknowledge(
            self,
            "CDK's grant for reading assets: the build folders in the bootstrap bucket.",
            *(f"AwsSolutions-IAM5[Action::s3:{verb}*]" for verb in ("GetObject", "GetBucket", "List")),
            wildcard("arn:<AWS::Partition>:s3:::cdk-hnb659fds-assets-<AWS::AccountId>-<AWS::Region>/*"),
        )
        acknowledge(
            self,
            "CodeBuild names its log streams and test reports itself, under this project's name.",
            *(in_account("codebuild", f"report-group/<{project}>-*") for project in projects),
            *(in_account("logs", f"log-group:/aws/codebuild/<{project}>:*") for project in projects),
        )


# The logical ids that deploy-time-build gives its build projects, one for each platform.
_AMD64 = "ContainerImageBuildAmd64e83729feb1564e709bec452b15847a30amd6491AAA9B2"
_ARM64 = "ContainerImageBuildArm64e83729feb1564e709bec452b15847a30amd64C13E3549"
