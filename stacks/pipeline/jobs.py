"""What the requests for a stage's jobs have in common."""

from dataclasses import dataclass
from typing import Any

from stacks.config import TrainingSettings
from stacks.pipeline.language import get

HOUR = 3600  # seconds


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What every job of a stage shares. Texts may be CloudFormation tokens; `vpc` None: no VPC."""

    name: str
    image: str
    role_arn: str
    bucket: str
    key_arn: str
    vpc: dict[str, Any] | None
    settings: TrainingSettings

    def run_uri(self, kind: str) -> str:
        """Where jobs of that kind (train, evaluate, tune, checkpoints) write."""
        return f"s3://{self.bucket}/runs/{self.name}/{kind}"

    @property
    def volume_key(self) -> dict[str, str]:
        return {"VolumeKmsKeyId": self.key_arn} if self.settings.volume_key else {}

    @property
    def environment(self) -> dict[str, str]:
        """What the program writes into the model's passport and cannot find out by itself."""
        return {"TRAINING_IMAGE": self.image}

    @property
    def vpc_config(self) -> dict[str, Any]:
        return {"VpcConfig": self.vpc} if self.vpc else {}

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": "kennel:pipeline", "Value": self.name}]


def prepared(output: str) -> dict[str, str]:
    """Where Prepare has put that output of its (data, weights, report)."""
    return get(f"Steps.Prepare.ProcessingOutputConfig.Outputs['{output}'].S3Output.S3Uri")
