"""One command from images to breeds: synthesize, deploy to the embedded AWS, train, release, classify, report."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from kennel.console import Display
from kennel.rehearsal.embedded import embedded
from kennel.rehearsal.follow import Follower
from kennel.rehearsal.options import Options
from kennel.rehearsal.parameters import overrides
from kennel.rehearsal.record import Record
from kennel.rehearsal.samples import write_digits
from kennel.rehearsal.session import Session
from kennel.rehearsal.stay_up import keep_up
from kennel.rehearsal.synthesis import synthesize
from kennel.rehearsal.workspace import workspace
from kennel.upload.folder import look_at


def rehearse(options: Options) -> Path:
    """Rehearse the whole path and return the path of report.html, which is written after a failure too.

    Raises KennelError with the reason when a step fails; Ctrl-C ends every process that was started.
    """
    with workspace(options.out) as work, Display() as display:
        record = Record(options, display)
        try:
            _everything(options, work, record)
        except BaseException as error:
            record.failure = str(error) or type(error).__name__
            raise
        finally:
            report = record.write()
            display.log(f"Report: {report}")
    return report


def _everything(options: Options, work: Path, record: Record) -> None:
    display = record.display
    follower = Follower(display, options.epochs)
    record.epochs, record.trials = follower.epochs, follower.trials
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        # The app is synthesized in a process of its own while this one looks at the data and starts the embedded AWS.
        assembly = pool.submit(synthesize, work / "cdk.out")
        data = _look(options, work, record)
        with display.step("Start the embedded AWS"):
            cloud = stack.enter_context(embedded(options, work, follower))
        with display.step("Synthesize the app"):
            assembly.result()
        stack.callback(lambda: record.denied.extend(cloud.denied))
        session = Session(options, work, record, cloud)
        session.deploy(work / "cdk.out")
        session.train(data)
        session.release()
        session.classify()
        if options.keep:
            record.environment = cloud.environment()
            display.log(f"Report: {record.write()}")  # now too: this may stay up for hours
            keep_up(cloud, session.deployed, display)


def _look(options: Options, work: Path, record: Record) -> Path:
    with record.display.step("Look at the data") as step:
        data = options.data or write_digits(work / "digits", seed=options.seed)
        tree = look_at(data)
        step.detail = f"{len(tree.images):,} images, {len(tree.classes)} classes"
        record.overrides = overrides(options, data, len(tree.classes))
    return data
