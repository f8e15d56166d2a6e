"""A stage with a pipeline whose jobs are small scripts: real processes behind the embedded AWS, without torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.containers.local import ProcessEngine
from kennel.rehearsal.interfaces import DataPlane, PipelineExecution
from kennel.rehearsal.jobs.execution import PipelineRunner
from stacks.config import TrainingSettings
from stacks.pipeline.definition import pipeline_definition
from stacks.pipeline.requests import Jobs

PIPELINE = "kennel-test"
MANIFEST = "datasets/pets/0123456789abcdef.manifest"
_BEGIN = """
import json, os, sys, time
from pathlib import Path
ml = Path(os.environ["OPT_ML"])
def say(*words): print(*words, flush=True)
"""
TRAIN = """
say("model=resnet18 mode=head")
for epoch in (1, 2):
    say(f"epoch={epoch} train_loss=0.5 valid_loss=0.25 valid_accuracy=0.{epoch} images_per_second=100.0")
(ml / "model" / "model.json").write_text("{}")
"""
EVALUATION = {
    "format": 1,
    "metrics": {"accuracy": {"value": 0.9}, "accuracy_lower": {"value": 0.8}},
    "test_samples": 100,
    "per_class": [{"class": "cat", "recall": 0.8, "support": 50}, {"class": "dog", "recall": 1.0, "support": 50}],
    "model": {
        "hyperparameters": {"epochs": 2, "mode": "head"},
        "data": {"fingerprint": "0123456789abcdef", "train_images": 700, "valid_images": 200},
        "trained_on": {"instance_type": "ml.m5.xlarge", "instances": 1, "seconds": 10},
        "trials": [],
    },
}
EVALUATE = f"""
(ml / "processing/output/evaluation/evaluation.json").write_text('''{json.dumps(EVALUATION)}''')
say("evaluated")
"""
_PARAMETERS = [
    {"Name": "DataManifest", "Type": "String"},
    {"Name": "InstanceType", "Type": "String", "DefaultValue": "ml.m5.xlarge"},
    {"Name": "InstanceCount", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Epochs", "Type": "Integer", "DefaultValue": 2},
    {"Name": "Mode", "Type": "String", "DefaultValue": "auto", "EnumValues": ["auto", "head", "whole"]},
]


class LaunchWorld:
    """`bucket` holds one data set; `stage` has the stacks Data and Pipeline."""

    stage = "T"

    def __init__(self, work: Path) -> None:
        self.cloud = Cloud(DataPlane(self._run, *[_nothing] * 5), work / "cloud")  # type: ignore[arg-type]
        self._work = work

    def fill(self) -> None:
        cloudformation, s3 = self.cloud.client("cloudformation"), self.cloud.client("s3")
        body = {"Resources": {"B": {"Type": "AWS::S3::Bucket"}}, "Outputs": {"DataBucketName": {"Value": {"Ref": "B"}}}}
        cloudformation.create_stack(StackName="Kennel-T-Data", TemplateBody=json.dumps(body))
        body = {"Resources": {"B": {"Type": "AWS::S3::Bucket"}}, "Outputs": {"PipelineName": {"Value": PIPELINE}}}
        cloudformation.create_stack(StackName="Kennel-T-Pipeline", TemplateBody=json.dumps(body))
        described = cloudformation.describe_stacks(StackName="Kennel-T-Data")["Stacks"][0]
        self.bucket = described["Outputs"][0]["OutputValue"]
        s3.put_object(Bucket=self.bucket, Key=MANIFEST, Body=b"[]")
        s3.put_object(
            Bucket=self.bucket, Key=f"{MANIFEST[:-9]}/dataset.json", Body=json.dumps({"images": 2000}).encode()
        )
        trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        iam = self.cloud.client("iam")
        role = iam.create_role(RoleName="all", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        self.role = role["Role"]["Arn"]
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_role_policy(RoleName="all", PolicyName="all", PolicyDocument=json.dumps(everything))

    def deployed_pipeline(self) -> None:
        """Create the pipeline of the app itself, with its gate open, and a group for what it registers."""
        settings = TrainingSettings(accuracy_threshold=0.0, worst_classes_threshold=0.0)
        key = self.cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
        jobs = Jobs(
            name=PIPELINE, image="i", role_arn=self.role, bucket=self.bucket, key_arn=key, vpc=None, settings=settings
        )
        self.cloud.client("sagemaker").create_model_package_group(ModelPackageGroupName="models")
        names = {"inference_image": "i", "model_group": "models"}
        self._create(pipeline_definition(jobs, **names, approval_status="Approved", runtime="openvino"))

    def pipeline(self, train: str = TRAIN, evaluate: str = EVALUATE, **more: Any) -> None:
        """Create the pipeline: Train and Evaluate, as scripts in which `ml` is the job's /opt/ml."""
        get = {"Get": "Execution.PipelineExecutionId"}
        place = {"Std:Join": {"On": "/", "Values": [f"s3://{self.bucket}/runs/{PIPELINE}/evaluate", get]}}
        steps = [self._training(train, **more), self._processing(evaluate, place)]
        self._create({"Version": "2020-12-01", "Parameters": _PARAMETERS, "Steps": steps})

    def _create(self, definition: dict[str, Any]) -> None:
        self.cloud.client("sagemaker").create_pipeline(
            PipelineName=PIPELINE,
            PipelineDefinition=json.dumps(definition),
            RoleArn=self.role,
            ClientRequestToken="t" * 32,
        )

    @property
    def executions(self) -> list[dict[str, Any]]:
        listed = self.cloud.client("sagemaker").list_pipeline_executions(PipelineName=PIPELINE)
        return list(listed["PipelineExecutionSummaries"])

    def parameters_of(self, execution: str) -> dict[str, str]:
        sagemaker = self.cloud.client("sagemaker")
        given = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=execution)["PipelineParameters"]
        return {one["Name"]: one["Value"] for one in given}

    def _training(self, script: str, **more: Any) -> dict[str, Any]:
        arguments = {
            "AlgorithmSpecification": {
                "TrainingImage": "i",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "-c", _BEGIN + script],
                "MetricDefinitions": [{"Name": "valid_accuracy", "Regex": "valid_accuracy=([0-9.]+)"}],
            },
            "RoleArn": self.role,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/runs/{PIPELINE}/train"},
            "ResourceConfig": {
                "InstanceType": {"Get": "Parameters.InstanceType"},
                "InstanceCount": {"Get": "Parameters.InstanceCount"},
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 7200},
            **more,
        }
        return {"Name": "Train", "Type": "Training", "Arguments": arguments}

    def _processing(self, script: str, place: Any) -> dict[str, Any]:
        output = {"S3Uri": place, "LocalPath": "/opt/ml/processing/output/evaluation", "S3UploadMode": "EndOfJob"}
        cluster = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
        arguments = {
            "AppSpecification": {"ImageUri": "i", "ContainerEntrypoint": ["python3", "-c", _BEGIN + script]},
            "RoleArn": self.role,
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "evaluation", "S3Output": output}]},
            "ProcessingResources": {"ClusterConfig": cluster},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }
        return {"Name": "Evaluate", "Type": "Processing", "DependsOn": ["Train"], "Arguments": arguments}

    def _run(self, execution: PipelineExecution) -> None:
        self.runner.run(execution)

    @contextmanager
    def running(self) -> Iterator["LaunchWorld"]:
        with self.cloud:
            self.runner = PipelineRunner(
                client=self.cloud.client,
                work=self._work / "jobs",
                containers=ProcessEngine(),
            )
            try:
                self.fill()
                yield self
            finally:
                self.runner.close()


def _nothing(*arguments: Any) -> None:
    raise AssertionError("no endpoint and no function in these tests")
