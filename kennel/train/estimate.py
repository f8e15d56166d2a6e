"""What a run will probably take, from the records of runs like it."""

from kennel.compare.advice import expectations, spoken
from kennel.compare.cloud import aws_runs, images_of
from kennel.compare.records import Found
from kennel.errors import KennelError
from kennel.prices import dollars
from kennel.train.launch import Client, Plan

_NEWEST = 8  # runs looked at


def estimate(client: Client, plan: Plan) -> str:
    """Runs on the same machines, scaled to this data; empty where no record allows to say."""
    learning = next((job for job in plan.jobs if job.step.startswith("Train")), None)
    if learning is None:
        return ""  # how many trials a tuning job ends early is anybody's guess
    found = Found()
    try:
        aws_runs(client, plan.bucket, plan.pipeline, plan.prices, found, newest=_NEWEST)
    except KennelError:
        return ""
    kind = (
        "SageMaker spot" if "Spot" in learning.step else "SageMaker",
        f"{learning.instances} x {learning.instance_type}",
    )
    runs = [run for run in found.runs if (run.launcher, run.place) == kind]
    images = images_of(client("s3"), plan.bucket, plan.parameters["DataManifest"])
    if not (runs and images):
        return ""
    expected = expectations(runs, images=images, epochs=int(plan.values.get("Epochs", 0)), mode=runs[0].mode)
    return "".join(
        f"Runs like it took about {spoken(one.seconds)} and {dollars(one.cost)} ({one.runs} in {runs[0].mode} mode)."
        for one in expected
    )
