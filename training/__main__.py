"""`python3 -m training train | prepare | evaluate | drift`: what a container of the training image runs."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from training.errors import TrainingError, sentence
from training.hyperparameters import MODES, add_arguments
from training.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed with the reason written down, 143 stopped by SIGTERM."""
    arguments = _parser().parse_args(argv)
    paths = Paths.from_environment()
    if arguments.command == "train":
        # Each command imports what it needs: preparing and evaluating never load torch.
        from training.distributed.launcher import launch

        overrides = {name: value for name, value in vars(arguments).items() if name != "command"}
        return launch(paths, overrides)
    if arguments.command == "prepare":
        from training.prepare.run import Options, prepare

        options = Options(**{name: value for name, value in vars(arguments).items() if name != "command"})
        return _report_failure(paths, lambda: prepare(paths, options))
    if arguments.command == "drift":
        from training.drift.run import Options as DriftOptions
        from training.drift.run import drift

        limits = DriftOptions(arguments.accuracy_threshold, arguments.expected_lines)
        return _report_failure(paths, lambda: drift(paths, limits))
    from training.evaluate.run import evaluate

    return _report_failure(paths, lambda: evaluate(paths))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, export and record a classifier")
    add_arguments(train)
    prepare = commands.add_parser("prepare", help="verify images, make splits, pack shards")
    prepare.add_argument(
        "--duplicates",
        choices=("fail", "remove", "report"),
        default="fail",
        help="what happens to an image that is byte for byte in two splits: the job fails, the copy in train/ "
        "(of valid/ and test/: in valid/) goes, or both stay and are named",
    )
    prepare.add_argument(
        "--mode",
        choices=("auto", *MODES),
        default="auto",
        help="what training will learn: head and finetune need weights; auto means head if there are any, else whole",
    )
    commands.add_parser("evaluate", help="measure a trained model on the test split")
    drift = commands.add_parser("drift", help="compare captured requests with the test split")
    drift.add_argument("--accuracy-threshold", type=float, default=0.0, help="an estimate below it is drift; 0 to 1")
    drift.add_argument("--expected-lines", type=int, default=0, help="Invocations x the captured share; 0: not known")
    return parser


def _report_failure(paths: Paths, work: Callable[[], None]) -> int:
    """Run a processing job; SageMaker shows `output/message` as the job's exit message."""
    try:
        work()
    except Exception as error:
        if not isinstance(error, TrainingError | OSError | MemoryError):
            traceback.print_exc()  # a defect of ours: its place is worth more than tidiness
        paths.write_reason("message", sentence(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
