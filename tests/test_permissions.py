"""docs/permissions.md: with its policy each command does all it does, without any one action it does not."""

import io
import json
import re
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from typer.testing import CliRunner

from kennel.aws import client, stack_name
from kennel.cli import COMMANDS, app
from kennel.errors import KennelError
from kennel.loadtest.subject import deployed as endpoint_of
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.interfaces import FunctionAnswer, PipelineExecution
from tests.cli.launch_world import EVALUATION
from tests.cli.trees import tree
from tests.rehearsal.cloud.world import World, eventually

ROOT = Path(__file__).resolve().parents[1]
STAGE, NAME = "Dev", "kennel-dev"
PAGE = (ROOT / "docs" / "permissions.md").read_text()
SECTIONS = {section.split("\n")[0].strip("`"): section for section in PAGE.split("\n## ")[1:]}
Policy = dict[str, Any]


def _policies() -> dict[str, Policy]:
    found = {title: re.findall(r"^```json\n(.*?)^```", text, flags=re.M | re.S) for title, text in SECTIONS.items()}
    return {title: json.loads(blocks[0]) for title, blocks in found.items() if blocks}


POLICIES = _policies()
OPERATIONS = [title for title in POLICIES if title.startswith("kennel ")]


def _actions(statement: Mapping[str, Any]) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


def _cases(titles: list[str]) -> list[tuple[str, int, str]]:
    """(title, number of a statement, one of its actions) of every action of these policies."""
    numbered = [(title, number, one) for title in titles for number, one in enumerate(POLICIES[title]["Statement"])]
    return [(title, number, action) for title, number, one in numbered for action in _actions(one)]


def _without(policy: Policy, number: int, action: str) -> list[dict[str, Any]]:
    """The policy's statements, of which one has lost an action."""
    found = []
    for each, statement in enumerate(policy["Statement"]):
        left = [one for one in _actions(statement) if (each, one) != (number, action)]
        found += [{**statement, "Action": left}] if left else []
    return found


@dataclass
class Stage:
    """The deployed stage with a data set, a finished run, a released model and an endpoint."""

    world: World
    values: dict[str, str]  # what stands in the page's place of BUCKET, KEY ...
    package: str
    work: Path
    assembly: Path
    failure: str = ""  # what the last command said that failed

    def role(self, statements: list[dict[str, Any]], title: str = "") -> str:
        # Prod's templates ask the account for everything that preflight looks at.
        own = {"STAGE": "Prod", "NAME": "kennel-prod"} if title == "kennel preflight" else {}
        values = self.values | own
        text = json.dumps(statements).replace("Kennel-STAGE-", stack_name(values["STAGE"], ""))
        for name, value in values.items():
            text = re.sub(rf"\b{name}\b", value, text)
        return self.world.role(f"person-{uuid.uuid4().hex[:8]}", *json.loads(text))

    def denials(self, role: str, do: Callable[["Stage"], object]) -> list[str]:
        """What was refused while `do` ran with the credentials of `role`."""
        before, self.failure = len(self.world.cloud.denied), ""
        boto3.DEFAULT_SESSION = None  # it holds the credentials of the role before
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.world.cloud.environment(role).items():
                patch.setenv(name, value)
            do(self)
        boto3.DEFAULT_SESSION = None
        return self.world.cloud.denied[before:]


@pytest.fixture(scope="module")
def stage(assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    work = tmp_path_factory.mktemp("work")
    world = World(work / "cloud")
    answer = {"predictions": [{"label": "cat", "probability": 0.9}], "label": "cat", "probabilities": [0.9]}
    world.function = lambda call: FunctionAnswer(json.dumps(answer).encode(), None, "")
    with world.cloud:
        deploy(world.cloud, assembly, STAGE)
        outputs = {one["OutputKey"]: one["OutputValue"] for one in world.stack(stack_name(STAGE, "Data"))["Outputs"]}
        bucket = outputs["DataBucketName"]
        rules = world.cloud.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        key = rules["Rules"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"].rpartition("/")[2]
        values = {"BUCKET": bucket, "KEY": key, "NAME": NAME, "STAGE": STAGE, "REGION": REGION, "ACCOUNT": ACCOUNT}
        world.run = lambda execution: _run(world, bucket, execution)
        _deploy_one_of_prod(world)
        _send_data(world, bucket)
        package = _release(world, bucket)
        yield Stage(world, values, package, work, assembly)


def _deploy_one_of_prod(world: World) -> None:
    resources = {"Any": {"Type": "AWS::Logs::LogGroup"}}
    world.cloud.client("cloudformation").create_stack(
        StackName=stack_name("Prod", "Classify"),
        TemplateBody=json.dumps({"Resources": resources}),
        Tags=[{"Key": "kennel:stage", "Value": "Prod"}],
    )


def _send_data(world: World, bucket: str) -> None:
    s3 = world.cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="datasets/pets/0123456789abcdef/dataset.json", Body=b'{"images": 2000}')
    s3.put_object(Bucket=bucket, Key="datasets/pets/0123456789abcdef.manifest", Body=b"[]")
    sagemaker = world.cloud.client("sagemaker")

    def ended() -> Any:
        listed = sagemaker.list_pipeline_executions(PipelineName=NAME)["PipelineExecutionSummaries"]
        return listed and listed[0]["PipelineExecutionStatus"] == "Succeeded"

    eventually(ended)


CLUSTER = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
ROLE = "arn:aws:iam::123456789012:role/any"
TRAINING = {
    "RoleArn": ROLE,
    "AlgorithmSpecification": {"TrainingImage": "local/x", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
    "ResourceConfig": CLUSTER,
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
}


def _run(world: World, bucket: str, execution: PipelineExecution) -> None:
    """A run with a job of each kind, a log and an evaluation, without any process."""
    names = {kind: f"{kind.lower()}-{execution.id}" for kind in ("ProcessingJob", "TrainingJob", "TuningJob")}
    sagemaker, now = world.cloud.client("sagemaker"), time.time()
    sagemaker.create_processing_job(
        ProcessingJobName=names["ProcessingJob"],
        RoleArn=ROLE,
        AppSpecification={"ImageUri": "local/x"},
        ProcessingResources={"ClusterConfig": CLUSTER},
    )
    sagemaker.create_training_job(TrainingJobName=names["TrainingJob"], **TRAINING)
    limits = {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=names["TuningJob"],
        HyperParameterTuningJobConfig={"Strategy": "Random", "ResourceLimits": limits},
        TrainingJobDefinition=TRAINING,
    )
    steps = {
        "Prepare": ("ProcessingJob", "processing-job"),
        "Train": ("TrainingJob", "training-job"),
        "Tune": ("TuningJob", "hyper-parameter-tuning-job"),
    }
    for step, (kind, path) in steps.items():
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{path}/{names[kind]}"
        times = {"StepStatus": "Succeeded", "StartTime": now, "EndTime": now}
        execution.steps.append({"StepName": step, "Metadata": {kind: {"Arn": arn}}, **times})
    logs, stream = world.cloud.client("logs"), f"{names['TrainingJob']}/algo-1-1"
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream)
    key = f"runs/{NAME}/evaluate/{execution.id}/evaluation.json"
    world.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(EVALUATION).encode())


def _release(world: World, bucket: str) -> str:
    """The ARN of the package that the endpoint serves."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz"):
        pass
    artifact = f"runs/{NAME}/train/job/output/model.tar.gz"
    world.cloud.client("s3").put_object(Bucket=bucket, Key=artifact, Body=archive.getvalue())
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/inference:1"
    container = {"Image": image, "ModelDataUrl": f"s3://{bucket}/{artifact}"}
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    package = world.cloud.client("sagemaker").create_model_package(
        ModelPackageGroupName=NAME,
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus="Approved",
    )["ModelPackageArn"]
    stack = stack_name(STAGE, "Hosting")
    eventually(lambda: world.stack(stack)["StackStatus"].endswith("_COMPLETE"))
    world.update(stack, ModelPackageArn=package)
    assert world.stack(stack)["StackStatus"] == "UPDATE_COMPLETE"
    _register_another(world, bucket, container, formats)
    return str(package)


def _register_another(world: World, bucket: str, container: dict[str, Any], formats: dict[str, Any]) -> None:
    """Version 2, which was live before version 1, as the records of releases say it."""
    sagemaker, s3 = world.cloud.client("sagemaker"), world.cloud.client("s3")
    sagemaker.create_model_package(
        ModelPackageGroupName=NAME,
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus="PendingManualApproval",
    )
    for version, day in ((2, 1), (1, 2)):
        key = f"releases/{version:06}/2026110{day}T090000.000Z-live.json"
        s3.put_object(Bucket=bucket, Key=key, Body=b'{"at": "2026-11-01T09:00:00.000Z", "why": ""}')


def kennel(*arguments: object) -> Callable[[Stage], object]:
    def do(stage: Stage) -> None:
        done = CliRunner().invoke(app, [*map(str, arguments)], prog_name="kennel")
        assert done.exit_code in (0, 1), done.output
        stage.failure = done.output if done.exit_code else ""

    return do


def upload(stage: Stage) -> None:
    """With weights of more than 8 MB, which go in pieces."""
    folder = stage.work / "pets"
    if not folder.exists():
        tree(folder, "a/1.png", "b/1.png")
        (stage.work / "large.pth").write_bytes(bytes(9 * 2**20))
    name = f"pets-{uuid.uuid4().hex[:8]}"  # new data each time: nothing of it is there
    kennel("upload", folder, "--name", name, "--weights", stage.work / "large.pth", "--stage", STAGE)(stage)


def loadtest(stage: Stage) -> None:
    """Its calls; the load itself takes minutes."""
    subject = endpoint_of(STAGE, client)
    client("sagemaker-runtime").invoke_endpoint(EndpointName=subject.endpoint, Body=b"")


def photo(stage: Stage) -> None:
    picture = next(tree(stage.work / "photo", "a/1.png").rglob("*.png"))
    kennel("invoke", picture, "--stage", STAGE)(stage)


def rollback(stage: Stage) -> None:
    """From version 1, which is live, to version 2, which was before."""
    sagemaker = stage.world.cloud.client("sagemaker")
    for version in ("1", "2"):
        arn = f"{stage.package.rpartition('/')[0]}/{version}"
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    kennel("rollback", "--stage", STAGE)(stage)


DOES: dict[str, Callable[[Stage], object]] = {
    "kennel status": kennel("status", "--stage", STAGE),
    "kennel releases": kennel("releases", "--stage", STAGE),
    "kennel approve": kennel("approve", "2", "--stage", STAGE),
    "kennel reject": kennel("reject", "2", "--why", "A test.", "--stage", STAGE),
    "kennel rollback": rollback,
    "kennel preflight": lambda stage: kennel("preflight", "--stage", "Prod", "--assembly", stage.assembly)(stage),
    "kennel upload": upload,
    "kennel train": kennel("train", "pets", "--stage", STAGE, "--yes"),
    "kennel compare": kennel("compare", "--stage", STAGE, "--runs", "nowhere"),
    "kennel verify": lambda stage: kennel("verify", stage.package)(stage),
    "kennel loadtest": loadtest,
    "kennel invoke": photo,
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kennel.train.follow._POLL_S", 0.01)


def _do(stage: Stage, title: str) -> None:
    with suppress(ClientError, KennelError):  # where no command says it in a sentence
        DOES[title](stage)


@pytest.mark.parametrize("title", OPERATIONS)
def test_with_its_policy_a_command_is_refused_nothing(stage: Stage, title: str) -> None:
    role = stage.role(POLICIES[title]["Statement"], title)
    assert stage.denials(role, DOES[title]) == []
    if title not in ("kennel verify", "kennel preflight"):  # which find what is wrong with this world
        assert stage.failure == ""


@pytest.mark.parametrize(("title", "number", "action"), _cases(OPERATIONS))
def test_without_one_action_of_its_policy_a_command_is_refused_that(
    stage: Stage, title: str, number: int, action: str
) -> None:
    role = stage.role(_without(POLICIES[title], number, action), title)
    refused = stage.denials(role, lambda stage: _do(stage, title))
    assert any(f"may not {action}" in one for one in refused), refused


def test_every_command_and_target_stands_on_the_page() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M)
    needing = {"diff", "deploy", "destroy"}
    assert needing <= set(targets)
    assert all(f"`make {name}`" in PAGE for name in needing)
    assert [name for name in COMMANDS if f"`kennel {name}" not in PAGE] == []
    assert set(DOES) == set(OPERATIONS)


# ---- the CDK's command
def _roles_of_the_cdk(value: Any) -> Iterator[str]:
    """Every role that the cloud assembly tells the CDK to take on."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "assumeRoleArn" or (name == "arn" and isinstance(inner, str)):
                yield str(inner)
            else:
                yield from _roles_of_the_cdk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _roles_of_the_cdk(inner)


def test_the_cdk_takes_on_the_roles_that_its_policy_names_and_no_other(stage: Stage, assembly: Path) -> None:
    files = [*assembly.rglob("manifest.json"), *assembly.rglob("*.assets.json")]
    named = {role for file in files for role in _roles_of_the_cdk(json.loads(file.read_text()))}
    roles = {re.sub(r"\$\{AWS::(\w+)\}", lambda found: _PSEUDO[found[1]], role) for role in named}
    (statement,) = POLICIES["make diff"]["Statement"]
    filled = {one.replace("ACCOUNT", ACCOUNT).replace("REGION", REGION) for one in statement["Resource"]}
    assert roles == filled
    for role in roles:  # as `cdk bootstrap` makes them
        stage.world.role(role.rpartition("/")[2])

    def assume(_stage: Stage) -> None:
        for role in sorted(roles):
            with suppress(ClientError):
                client("sts").assume_role(RoleArn=role, RoleSessionName="deploy")

    assert stage.denials(stage.role([statement]), assume) == []
    assert len(stage.denials(stage.role([]), assume)) == len(roles)


_PSEUDO = {"AccountId": ACCOUNT, "Region": REGION, "Partition": "aws"}


# ---- the notebook
NOTEBOOK = "Who starts the notebook again"


@pytest.fixture(scope="module")
def notebook(stage: Stage) -> str:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{stage.values['KEY']}"
    sagemaker = stage.world.cloud.client("sagemaker")
    own = stage.world.role("notebook-role")
    place = {"SubnetId": "subnet-1", "SecurityGroupIds": ["sg-1"], "KmsKeyId": key}
    sagemaker.create_notebook_instance(NotebookInstanceName="notes", InstanceType="ml.t2.medium", RoleArn=own, **place)
    stage.values |= {"NOTEBOOK": "notes", "ROLE": "notebook-role"}
    return "notes"


def operate_notebook(_stage: Stage) -> None:
    sagemaker = client("sagemaker")
    calls = ("describe", "stop", "start")
    for call in (*(f"{verb}_notebook_instance" for verb in calls), "create_presigned_notebook_instance_url"):
        with suppress(ClientError):  # moto has no such URL
            getattr(sagemaker, call)(NotebookInstanceName="notes")


def test_with_its_policy_a_person_starts_the_notebook_again(stage: Stage, notebook: str) -> None:
    assert stage.denials(stage.role(POLICIES[NOTEBOOK]["Statement"]), operate_notebook) == []
    about = stage.world.cloud.client("sagemaker").describe_notebook_instance(NotebookInstanceName=notebook)
    assert about["NotebookInstanceStatus"] == "InService"


@pytest.mark.parametrize(("title", "number", "action"), _cases([NOTEBOOK]))
def test_without_one_action_of_it_the_notebook_is_refused(
    stage: Stage, notebook: str, title: str, number: int, action: str
) -> None:
    refused = stage.denials(stage.role(_without(POLICIES[title], number, action)), operate_notebook)
    assert any(f"may not {action}" in one for one in refused), refused
