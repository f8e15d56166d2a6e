"""One command from images to breeds: synthesize, deploy to the embedded AWS, train, release, classify, report."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kennel.console import Display, say
from kennel.errors import ROOT, KennelError
from kennel.files import disk_full, locked
from kennel.page.server import serve_until_stopped
from kennel.page.snippets import Target, shell_commands
from kennel.rehearsal.cloud.clients import client, environment, without_settings
from kennel.rehearsal.cloud.deployment import Deployed
from kennel.rehearsal.cloud.quotas import Quotas
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.containers.images import image_engine
from kennel.rehearsal.containers.local import pick_engine
from kennel.rehearsal.interfaces import DataPlane
from kennel.rehearsal.jobs.execution import PipelineRunner
from kennel.rehearsal.options import Options, overrides
from kennel.rehearsal.report import RehearsalReport, write
from kennel.rehearsal.samples import Picture, hold_out, write_digits
from kennel.rehearsal.serving.endpoints import Endpoints
from kennel.rehearsal.serving.functions import Functions
from kennel.rehearsal.session import Session
from kennel.rehearsal.update import NODE, SourceTree, Update
from kennel.upload.folder import scan_folder


def rehearse(options: Options) -> Path:
    """Rehearse the whole path and return the path of report.html, which is written after a failure too.

    Raise KennelError with the reason when a step fails; Ctrl-C ends every process that was started.
    """
    with workspace(options.out) as work, Display() as display:
        report = RehearsalReport(
            stage=options.stage,
            started=datetime.now(UTC),
            data=str(options.data or "handwritten digits (scikit-learn)"),
            machine={"system": platform.platform(), "cores": str(os.cpu_count()), "python": platform.python_version()},
            steps=display.steps,
        )
        try:
            _everything(options, work, report, display)
        except BaseException as error:
            report.failure = str(error) or type(error).__name__
            raise
        finally:
            page = write(report, options.out)
            display.log(f"Report: {page}")
    return page


def _everything(options: Options, work: Path, report: RehearsalReport, display: Display) -> None:
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tree = SourceTree(work / "source") if options.update else None
        source = tree.folder if tree else ROOT
        # The app is synthesized in a process of its own while this one looks at the data and starts the embedded AWS.
        assembly = pool.submit(synthesize, work / "cdk.out", source)
        with display.step("Look at the data") as step:
            seed = int(options.hyperparameters.get("seed", 0))
            data = options.data or write_digits(work / "digits", seed=seed)
            images, held = scan_folder(data), list[Picture]()
            if options.hold_out:
                held = hold_out(images, options.hold_out, work / "kept", seed=seed)
                data, images = work / "kept", scan_folder(work / "kept")
            step.detail = f"{len(images.images):,} images, {len(images.classes)} classes"
            report.overrides = overrides(options, images)
            if images.unused:
                display.log(f"Not used: {images.unused}")
        with display.step("Start the embedded AWS"):
            cloud = stack.enter_context(embedded(options, work, display))
        with display.step("Synthesize the app"):
            assembly.result()
        stack.callback(lambda: report.denied.extend(cloud.denied))
        stack.callback(lambda: report.unused.extend(cloud.unused))
        session = Session(options, work, report, display, cloud, held)
        if tree:
            Update(session, tree, lambda out: synthesize(out, source)).run(data, work / "cdk.out")
            return
        session.deploy(work / "cdk.out")
        session.train(data)
        session.release()
        session.classify()
        if options.keep:
            display.log(f"Report: {write(report, options.out)}")  # now too: this may stay up for hours
            serve_other_clients(cloud, session.deployed, display)


@contextmanager
def embedded(options: Options, work: Path, display: Display) -> Iterator[Cloud]:
    """Start the embedded AWS on loopback and yield it; everything it started ends with the block."""
    with ExitStack() as stack:
        engine = image_engine(work / "images", options.base_image) if options.images else pick_engine()
        stack.callback(engine.close)
        display.log(f"Containers: {engine.name}. {engine.notice}".strip())
        functions = Functions(environment=environment)
        endpoints = Endpoints(client=client, engine=engine, work=work / "endpoints")
        runner = PipelineRunner(client=client, work=work / "jobs", containers=engine, interrupt_spot=options.spot)
        stack.callback(runner.close)
        stack.callback(endpoints.close)
        stack.callback(functions.close)
        hosting = (endpoints.deploy, endpoints.route, endpoints.delete, endpoints.invoke)
        data_plane = DataPlane(runner.run, functions.invoke, *hosting, engine.build)
        quotas = Quotas(new_account=options.new_account)
        yield stack.enter_context(Cloud(data_plane, work / "cloud", port=options.port, quotas=quotas))


def synthesize(out: Path, source: Path = ROOT) -> Path:
    """Write the assembly of both stages into `out`, as `cdk synth` does, in a process of its own, and return `out`.

    `source` holds app.py and what it synthesizes. The rules of CloudFormation and cdk-nag rest. Raise KennelError with
    the end of what app.py printed when it fails.
    """
    own = {"CDK_OUTDIR": str(out), "CDK_VALIDATION": "false"}
    variables = {"JSII_NODE": str(NODE), **without_settings(os.environ), **own}
    done = subprocess.run([sys.executable, "app.py"], cwd=source, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise KennelError(f"python app.py failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return out


def serve_other_clients(cloud: Cloud, deployed: Deployed, display: Display) -> None:
    """Serve the page, print how ordinary clients reach what is up, and return at Ctrl-C or SIGTERM."""
    stage = deployed.stage
    function = deployed.of("Classify")["FunctionAliasArn"]
    endpoint = deployed.of("Hosting")["EndpointName"]
    bucket = deployed.of("Data")["DataBucketName"]
    commands = f"""
The embedded AWS stays up at {cloud.url}. In another terminal:

{shell_commands(cloud.environment())}
kennel status --stage {stage}
kennel releases --stage {stage}
kennel invoke PHOTO --stage {stage}
aws s3 cp PHOTO s3://{bucket}/photos/
echo '{{"s3_uri": "s3://{bucket}/photos/PHOTO"}}' > event.json
aws lambda invoke --function-name {function} --payload fileb://event.json answer.json
aws sagemaker-runtime invoke-endpoint --endpoint-name {endpoint} --content-type image/jpeg \\
  --body fileb://PHOTO answer.json

Ctrl-C ends it."""
    target = Target(stage, function, cloud.client("lambda"), environment=cloud.environment())
    serve_until_stopped(target, 0, lambda page: say(display.console, f"\nDrop a photo on {page}", commands))


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Lock `out` for this rehearsal and yield a folder for everything that need not outlive it.

    Raise KennelError when another rehearsal writes to `out`, and for a disk that is full, naming the disk.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KennelError(f"--out {out} cannot be made: {error.strerror}.") from error
    work = Path(tempfile.mkdtemp(prefix="kennel-"))
    try:
        with locked(out, f"Another rehearsal is writing to {out}: choose another folder with --out."):
            yield work
    except OSError as error:
        if full := disk_full(error, f"{work} or {out}", "choose others with TMPDIR and --out"):
            raise KennelError(full) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
