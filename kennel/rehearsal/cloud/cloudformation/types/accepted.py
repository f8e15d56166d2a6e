"""Resource types that the rehearsal accepts without enacting them: they get a name and answer Ref and GetAtt.

A new type on which nothing in a rehearsal has to act is one line in ACCEPTED.
"""

from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]
from moto.core.common_models import CloudFormationModel

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.cloudformation.resource import Properties

_API = ("Api", "Integration", "Route", "Stage")
_NETWORK = (
    "FlowLog RouteTable SecurityGroup SecurityGroupEgress SecurityGroupIngress Subnet SubnetRouteTableAssociation "
    "VPC VPCEndpoint"
)
# Each type with what does not happen, for the coverage report.
ACCEPTED = {
    **{f"AWS::ApiGatewayV2::{noun}": "not served: the function is invoked directly" for noun in _API},
    **{f"AWS::EC2::{noun}": "no network: jobs and servers run on this machine" for noun in _NETWORK.split()},
    "AWS::ApplicationAutoScaling::ScalableTarget": "the number of instances does not change",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "the number of instances does not change",
    "AWS::Budgets::Budget": "not evaluated: nothing costs anything",
    "AWS::CloudWatch::Dashboard": "not drawn",
    "AWS::CodeBuild::Project": "not run: `--images` builds the images instead",
    "AWS::EC2::LaunchTemplate": "no instance is launched",
    "AWS::ECR::Repository": "no image is pushed or pulled",
    "AWS::IAM::InstanceProfile": "no instance is launched",
    "AWS::KMS::Key": "nothing is encrypted, but S3's use of the key is checked against each role's policies",
    "AWS::SNS::TopicPolicy": "not evaluated: whoever has the permission may publish",
    "AWS::SageMaker::NotebookInstance": "not started",
    "AWS::SageMaker::NotebookInstanceLifecycleConfig": "not started",
}
# Types in whose place something else acts.
STAND_INS = {
    "Custom::CDKContainerImageBuild": "not built by CodeBuild: jobs and server run from the source that the build was "
    "given, or in the image that `--images` builds of it; the image's tag is a hash of its source",
    "Custom::RegisteredModels": "its function is called when the stack is deleted; before, when it does nothing, not",
    "Custom::S3AutoDeleteObjects": "when the stack is deleted, the embedded AWS empties the bucket itself",
}
_REF_IS_THE_ARN = {"AWS::SageMaker::NotebookInstance"}


class AcceptedResource(CloudFormationModel):
    """A resource of which only the name is known; GetAtt is answered in AWS's form without any API."""

    def __init__(self, kind: str, name: str, properties: Properties) -> None:
        self.kind, self.name = kind, name
        self.properties = properties

    @property
    def physical_resource_id(self) -> str:
        return self._arn if self.kind in _REF_IS_THE_ARN else self.name

    @property
    def _arn(self) -> str:
        _, service, noun = self.kind.split("::")
        return f"arn:aws:{service.lower()}:{REGION}:{ACCOUNT}:{xform_name(noun, '-')}/{self.name}"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return True

    def get_cfn_attribute(self, attribute: str) -> str:
        """Return the ARN, or the name for attributes such as GroupId, or a text that names the attribute."""
        if attribute.endswith("Arn"):
            return self._arn
        return self.name if attribute.endswith(("Id", "Name")) else f"{self.name}.{attribute}"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        kind, properties = kwargs["ResourceType"], cloudformation_json.get("Properties", {})
        return cls(kind, properties.get(_name_property(kind), resource_name), properties)

    def change(self, properties: Properties) -> bool:
        """Return true unless `properties` give another name, which needs a new resource."""
        return bool(properties.get(_name_property(self.kind), self.name) == self.name)

    def delete(self, account_id: str, region_name: str) -> None:
        pass


def _name_property(kind: str) -> str:
    return f"{kind.rpartition('::')[2]}Name"
