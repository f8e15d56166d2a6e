"""What only an AWS account can tell: docs/first-account.md, asked of the account of your credentials, as a table.

It reads only. With `--failing-model` it also releases a model that starts, passes its health checks and fails on
photos, after it has said what that costs and you have agreed: which alarm takes it back, and whether CloudFormation
notices SageMaker's own rollback, is nowhere documented. Only for a stage with a canary.
Exit status 1: an answer is not what Kennel rests on.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # noqa: E402

from benchmarks.lib.report import parser, print_table, write_json  # noqa: E402
from kennel.aws import Client, client, output, stack_name  # noqa: E402
from kennel.errors import KennelError  # noqa: E402
from kennel.pipeline_steps import steps_of  # noqa: E402
from kennel.prices import dollars, read_prices  # noqa: E402
from kennel.rehearsal.drill.models import MODELS, archive  # noqa: E402
from kennel.releases import FAILED, Release, gather  # noqa: E402

_IDLE = timedelta(hours=3)
_RELEASE_S = 75 * 60  # the longest release: docs/contracts
_RECORD_S = 5 * 60  # until the observe function has written down how it ended
_POLL_S = 15.0
_MINUTES = 30  # in which two fleets run while a release fails
_FAILING = next(model for model in MODELS if model.name == "NaN")


class Answer(NamedTuple):
    """`verdict`: good, bad (Kennel rests on something else), known (a fact to write down) or open (not to be seen)."""

    verdict: str
    text: str


@dataclass(frozen=True)
class Account:
    """The deployed stage; `client` makes a boto3 client of a service."""

    stage: str
    client: Client

    @cached_property
    def endpoint(self) -> dict[str, Any]:
        """DescribeEndpoint's answer; ClientError where no model was released."""
        name = output(self.stage, "Hosting", "EndpointName")
        found: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=name)
        return found

    @cached_property
    def variant(self) -> dict[str, Any]:
        """The first variant of the endpoint's configuration."""
        config = self.endpoint["EndpointConfigName"]
        found = self.client("sagemaker").describe_endpoint_config(EndpointConfigName=config)
        return dict(found["ProductionVariants"][0])

    @cached_property
    def container(self) -> dict[str, Any]:
        model = self.client("sagemaker").describe_model(ModelName=self.variant["ModelName"])
        return {**model["PrimaryContainer"], "Role": model["ExecutionRoleArn"]}

    def resources(self, stack: str) -> Iterator[dict[str, Any]]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources")
        yield from pages.paginate(StackName=stack_name(self.stage, stack)).search("StackResourceSummaries[]")

    def events(self, stack: str) -> Iterator[dict[str, Any]]:
        """Newest first."""
        pages = self.client("cloudformation").get_paginator("describe_stack_events")
        yield from pages.paginate(StackName=stack_name(self.stage, stack)).search("StackEvents[]")


# ---- what is asked, each a question and a function that answers it
def concurrency(account: Account) -> Answer:
    limit = account.client("lambda").get_account_settings()["AccountLimit"]
    all_, free = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    return Answer("known", f"{all_:,}, of which {free:,} unreserved")


def quotas(account: Account) -> Answer:
    """The quotas of the types that the stage's pipeline uses by default."""
    name = output(account.stage, "Pipeline", "PipelineName")
    text = account.client("sagemaker").describe_pipeline(PipelineName=name)["PipelineDefinition"]
    defaults = {one["Name"]: one.get("DefaultValue") for one in json.loads(text)["Parameters"]}
    kind = str(defaults.get("InstanceType"))
    pages = account.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    values = {one["QuotaName"]: one["Value"] for page in pages for one in page["Quotas"]}
    uses = ("training job", "spot training job", "processing job", "endpoint")
    found = {use: int(values.get(f"{kind} for {use} usage", 0)) for use in uses}
    said = ", ".join(f"{use} {value}" for use, value in found.items())
    return Answer("good" if found["processing job"] else "bad", f"{kind}: {said}")


def stacks(account: Account) -> Answer:
    pages = account.client("cloudformation").get_paginator("describe_stacks").paginate()
    prefix = stack_name(account.stage, "")
    states = {
        one["StackName"].removeprefix(prefix): one["StackStatus"]
        for one in pages.search("Stacks[]")
        if one["StackName"].startswith(prefix)
    }
    if not states:
        return Answer("open", "nothing is deployed")
    bad = {name: state for name, state in states.items() if state not in ("CREATE_COMPLETE", "UPDATE_COMPLETE")}
    return Answer("bad", json.dumps(bad)) if bad else Answer("good", f"all {len(states)} complete")


def jobs(account: Account) -> Answer:
    name = output(account.stage, "Pipeline", "PipelineName")
    sagemaker = account.client("sagemaker")
    runs = sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]
    if not runs:
        return Answer("open", "nothing has run")
    steps = [step for step in steps_of(sagemaker, runs[0]["PipelineExecutionArn"]) if step.job]
    failed = [f"{step.name}: {step.reason}" for step in steps if step.status == "failed"]
    if failed:
        return Answer("bad", failed[0])
    done = [step.name for step in steps if step.status == "done"]
    return Answer("good" if done else "open", f"ran: {', '.join(done) or 'none to its end'}")


def served(account: Account) -> Answer:
    """SageMaker's configuration against CloudFormation's, by the one resource of that type."""
    kinds = {one["ResourceType"]: one["PhysicalResourceId"] for one in account.resources("Hosting")}
    stack = kinds.get("AWS::SageMaker::EndpointConfig", "none").rpartition("/")[2]
    endpoint = account.endpoint["EndpointConfigName"]
    if endpoint.lower() == stack.lower():
        return Answer("good", f"both {endpoint}")
    return Answer("bad", f"the endpoint has {endpoint}, the stack {stack}: {account.endpoint.get('FailureReason', '')}")


def rollback_alarms(account: Account) -> Answer:
    found = _alarms(account)
    if not found:
        return Answer("open", "none: the stage has no canary, or no model was released")
    return Answer("known", ", ".join(f"{one['AlarmName']} {one['StateValue']}" for one in found))


def _alarms(account: Account) -> list[dict[str, Any]]:
    prefix = f"{stack_name(account.stage, 'Hosting')}-Rollback"
    return list(account.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"])


def may_describe_alarms(account: Account) -> Answer:
    """Whether the endpoint's role may, as AWS demands of it; by its own policies."""
    iam, role = account.client("iam"), account.container["Role"].rpartition("/")[2]
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    granted = "cloudwatch:DescribeAlarms" in json.dumps(documents)
    if granted:
        return Answer("good", f"{role} may")
    return Answer("bad" if _alarms(account) else "known", f"{role} may not")


def scaling_alarms(account: Account) -> Answer:
    name = f"TargetTracking-endpoint/{account.endpoint['EndpointName']}"
    found = account.client("cloudwatch").describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    said = [
        f"{one.get('Statistic', 'metric math')} {one['ComparisonOperator']} {one['Threshold']:g}, "
        f"{one['EvaluationPeriods']} x {one.get('Period', 0)} s"
        for one in found
    ]
    return Answer("known", "; ".join(said)) if said else Answer("open", "no scaling alarm is there")


def idle_metrics(account: Account) -> Answer:
    """Whether an endpoint that nobody asks publishes zeros or nothing."""
    now = datetime.now(UTC)
    names = {"EndpointName": account.endpoint["EndpointName"], "VariantName": account.variant["VariantName"]}
    found = account.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[{"Name": name, "Value": value} for name, value in names.items()],
        StartTime=now - _IDLE,
        EndTime=now,
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    zeros = sum(one["Sum"] == 0 for one in found)
    return Answer("known", f"in the last {_IDLE.seconds // 3600} h {len(found)} points, of which {zeros} are zero")


def captured(account: Account) -> Answer:
    """The members of a captured request."""
    s3, bucket = account.client("s3"), output(account.stage, "Data", "DataBucketName")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents", [])
    if not listed:
        return Answer("open", "nothing is captured")
    newest = max(listed, key=lambda one: one["LastModified"])["Key"]
    line = json.loads(s3.get_object(Bucket=bucket, Key=newest)["Body"].read().splitlines()[0])
    return Answer("known", f"eventMetadata: {', '.join(sorted(line.get('eventMetadata', {})))}")


def start_time(account: Account) -> Answer:
    """How long the last creation or update of the endpoint took, from the stack's events."""
    own = [one for one in account.events("Hosting") if one["ResourceType"] == "AWS::SageMaker::Endpoint"]
    for end, begin in pairwise(own):
        if end["ResourceStatus"].endswith("_COMPLETE") and begin["ResourceStatus"].endswith("_IN_PROGRESS"):
            minutes = (end["Timestamp"] - begin["Timestamp"]).total_seconds() / 60
            return Answer("known", f"{end['ResourceStatus']} after {minutes:.1f} min")
    return Answer("open", "no event of the endpoint is left")


QUESTIONS: dict[str, Callable[[Account], Answer]] = {
    "Lambda's concurrent executions": concurrency,
    "Quotas of the pipeline's instance type": quotas,
    "Every stack is complete": stacks,
    "Jobs run with the stage's key": jobs,
    "The endpoint's configuration is the stack's": served,
    "The rollback alarms": rollback_alarms,
    "The endpoint's role may DescribeAlarms": may_describe_alarms,
    "What target tracking watches": scaling_alarms,
    "What an idle endpoint publishes": idle_metrics,
    "What a captured request holds": captured,
    "How long the endpoint's last change took": start_time,
}


def ask(account: Account, questions: dict[str, Callable[[Account], Answer]] = QUESTIONS) -> dict[str, Answer]:
    """Answer every question; what cannot be read is open, with AWS's words."""
    found = {}
    for question, answer in questions.items():
        try:
            found[question] = answer(account)
        except (ClientError, KennelError) as error:
            found[question] = Answer("open", str(error))
    return found


# ---- the one thing that costs
def release_a_failing_model(account: Account, wait: Callable[[float], object] = time.sleep) -> dict[str, Answer]:
    """Release a model that fails on photos; say what each service made of it. Without alarms it would stay."""
    sagemaker, before = account.client("sagemaker"), account.endpoint["EndpointConfigName"]
    live = sagemaker.describe_model_package(ModelPackageName=account.container["ModelPackageName"])
    package = _register_failing(account, live)
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    states = _states(account, wait)
    release = _failed_release(account, package, wait)
    with suppress(ClientError):  # the observer may have done it
        sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Rejected")
    after = sagemaker.describe_endpoint(EndpointName=account.endpoint["EndpointName"])
    kept = after["EndpointConfigName"] == before and after["EndpointStatus"] == "InService"
    serves = f"{after['EndpointStatus']} with {after['EndpointConfigName']}: {after.get('FailureReason', 'no reason')}"
    said = f"{release.sentence}: {release.why}" if release else "no record of its end"
    went_back = states[-1] == "UPDATE_ROLLBACK_COMPLETE"
    return {
        "The old fleet goes on": Answer("good" if kept else "bad", serves),
        "An alarm takes the failing model back": Answer("good" if release and release.alarm else "bad", said),
        "CloudFormation notices that SageMaker rolled back": _noticed(account, states),
        "CloudFormation's own rollback succeeds": Answer("good" if went_back else "bad", states[-1]),
    }


def _states(account: Account, wait: Callable[[float], object]) -> list[str]:
    """Return the statuses that the hosting stack goes through until its update has ended."""
    cloudformation, stack = account.client("cloudformation"), stack_name(account.stage, "Hosting")
    states: list[str] = []
    for _ in range(int(_RELEASE_S / _POLL_S)):
        state = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        states += [state] if [state] != states[-1:] else []
        if len(states) > 1 and not state.endswith("IN_PROGRESS"):
            break
        wait(_POLL_S)
    return states


def _failed_release(account: Account, package: str, wait: Callable[[float], object]) -> Release | None:
    """Return what the records say of how the package's release failed; None where they never do."""
    group, bucket = (output(account.stage, "Data", name) for name in ("ModelPackageGroupName", "DataBucketName"))
    for _ in range(int(_RECORD_S / _POLL_S)):
        found = [one for one in gather(account.client, group, bucket) if one.arn == package and one.state in FAILED]
        if found:
            return found[0]
        wait(_POLL_S)
    return None


def _noticed(account: Account, states: list[str]) -> Answer:
    """Whether the endpoint's own update failed, or the stack's triggers alone took the release back."""
    if not any("ROLLBACK" in state for state in states[1:]):
        return Answer("bad", " > ".join(states))
    begun = ("AWS::CloudFormation::Stack", "UPDATE_IN_PROGRESS")
    events = takewhile(lambda one: (one["ResourceType"], one["ResourceStatus"]) != begun, account.events("Hosting"))
    failed = [one for one in events if one["ResourceStatus"] == "UPDATE_FAILED"]
    said = f"yes: {failed[-1].get('ResourceStatusReason')}" if failed else "no: its rollback triggers saw the alarm"
    return Answer("known", said)


def _register_failing(account: Account, live: dict[str, Any]) -> str:
    """Register a copy of `live`, probes included, with a network to which no photo has numbers."""
    specification = live["InferenceSpecification"]
    container = {name: value for name, value in specification["Containers"][0].items() if name != "ModelDataETag"}
    container["ModelDataUrl"] = f"{container['ModelDataUrl'].rpartition('/')[0]}/failing/model.tar.gz"
    bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        account.client("s3").put_object(Bucket=bucket, Key=key, Body=archive(_FAILING, Path(folder) / "model"))
    made = account.client("sagemaker").create_model_package(
        ModelPackageGroupName=live["ModelPackageGroupName"],
        ModelPackageDescription="fails on photos: a test of the rollback",
        InferenceSpecification={**specification, "Containers": [container]},
        ModelApprovalStatus="PendingManualApproval",
        **{name: live[name] for name in ("ModelMetrics",) if name in live},
    )
    return str(made["ModelPackageArn"])


def price(account: Account) -> str:
    """What the failing release costs at most, and whose prices these are."""
    prices, kind = read_prices(), account.variant["InstanceType"]
    count = int(account.variant["InitialInstanceCount"])
    region = str(account.client("sagemaker").meta.region_name)
    cost = dollars(prices.cost(kind, count, _MINUTES * 60))
    return f"A second fleet of {count} x {kind} for up to {_MINUTES} minutes: {cost}. {prices.note(region)}"


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--stage", default="Dev", help="the deployed stage (default Dev)")
    made.add_argument("--failing-model", action="store_true", help="also release a model that fails; it asks")
    given = made.parse_args(arguments)
    account = Account(given.stage, client)
    found = ask(account)
    if given.failing_model:
        if not _alarms(account):
            raise SystemExit(f"{given.stage} has no rollback alarms: nothing would take the failing model back.")
        print(price(account))
        if input("Release it? [y/N] ").strip().lower() != "y":
            raise SystemExit("Nothing was released.")
        found |= release_a_failing_model(account)
    rows = [(question, answer.verdict, answer.text) for question, answer in found.items()]
    print_table(f"{given.stage} in this account", ("question", "verdict", "answer"), rows)
    write_json({question: answer._asdict() for question, answer in found.items()}, given.json)
    return 1 if any(answer.verdict == "bad" for answer in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
