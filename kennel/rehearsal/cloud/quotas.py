"""The account's quotas: what goes beyond them is refused in AWS's words, and Service Quotas answers with the values.

Without `new_account` Lambda's quota is the usual 1,000 and SageMaker refuses nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from moto.awslambda.models import lambda_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client

# SageMaker's quotas of a new account, by name: code and value, as of February 2024 (names and codes: January 2026),
# from gruntwork-io/terraform-aws-utilities. What AWS gives varies with an account's age and history.
# A type and use that is not here has the value 0.
NEW_ACCOUNT: dict[str, tuple[str, int]] = {
    "ml.m5.large for endpoint usage": ("L-614B09FD", 0),
    "ml.m5.xlarge for endpoint usage": ("L-2F737F8D", 0),
    "ml.m5.2xlarge for endpoint usage": ("L-C88C8F13", 0),
    "ml.m5.4xlarge for endpoint usage": ("L-E2649D46", 0),
    "ml.m5.large for training job usage": ("L-611FA074", 0),
    "ml.m5.xlarge for training job usage": ("L-CCE2AFA6", 0),
    "ml.m5.2xlarge for training job usage": ("L-AD0A282D", 0),
    "ml.m5.4xlarge for training job usage": ("L-AFB011B4", 0),
    "ml.c5.4xlarge for training job usage": ("L-E7898792", 0),
    "ml.m5.large for spot training job usage": ("L-29688C85", 4),
    "ml.m5.xlarge for spot training job usage": ("L-4CEE6BA6", 4),
    "ml.m5.2xlarge for spot training job usage": ("L-4A823FAB", 4),
    "ml.m5.4xlarge for spot training job usage": ("L-2A6ACFF7", 2),
    "ml.c5.4xlarge for spot training job usage": ("L-36C5FA8E", 1),
    "ml.m5.large for processing job usage": ("L-8541302D", 0),
    "ml.m5.xlarge for processing job usage": ("L-0307F515", 0),
    "ml.m5.2xlarge for processing job usage": ("L-1D84B9D2", 0),
    "ml.m5.4xlarge for processing job usage": ("L-379E85A3", 0),
    "ml.c5.4xlarge for processing job usage": ("L-EFB2F063", 0),
    "ml.t3.medium for notebook instance usage": ("L-E17566B7", 6),
    "Number of instances across active endpoints": ("L-7A3DF611", 4),
    "Maximum number of instances per endpoint": ("L-ED8DEE9B", 4),
    "Number of instances across all training jobs": ("L-00C91CB5", 4),
    "Number of instances across all spot training jobs": ("L-93958082", 4),
    "Number of instances across all processing jobs": ("L-F311B08F", 4),
}
_CONCURRENCY = ("Concurrent executions", "L-B99A9384")
_OTHERS = {  # of other services: name, code, value in a new account
    "codebuild": [("Concurrently running builds for Linux/Medium environment", "L-2DC20C30", 1)],
    "ec2": [("Running On-Demand G and VT instances", "L-DB2E81BA", 0)],
}
_MUCH = 1000  # of everything, in an account that is not new
_UNRESERVED = 100  # of Lambda's concurrency must stay unreserved, and of a smaller quota all of it
Use = tuple[str, int, int]  # a quota's name, the instances in use and those asked for


class Quotas:
    """Permits or refuses calls by the account's quotas. `raised` are values that AWS has granted since, by name."""

    def __init__(self, *, new_account: bool, raised: Mapping[str, int] | None = None) -> None:
        self.new_account = new_account
        raised = raised or {}
        self.concurrency = raised.get(_CONCURRENCY[0], 10 if new_account else _MUCH)
        self._values = {name: value if new_account else _MUCH for name, (_, value) in NEW_ACCOUNT.items()} | {**raised}

    def permit(self, call: Call) -> None:
        """Return when the quotas leave room for the call; raise ApiError as the service does otherwise."""
        if (call.service, call.operation) == ("lambda", "PutFunctionConcurrency"):
            asked = int(call.parameters["ReservedConcurrentExecutions"])
            self._leave_unreserved(call.parameters["FunctionName"], asked)
        elif call.service == "sagemaker" and self.new_account:
            for name, used, more in _uses(call):
                if used + more > self._values.get(name, 0):
                    raise _exceeded(name, self._values.get(name, 0), used, more)

    def handlers(self) -> dict[tuple[str, str], Handler]:
        return {
            ("service-quotas", "GetServiceQuota"): self._get,
            ("service-quotas", "ListServiceQuotas"): self._list,
            ("service-quotas", "ListAWSDefaultServiceQuotas"): self._list,
            ("lambda", "GetAccountSettings"): self._account_settings,
        }

    def _leave_unreserved(self, function: str, asked: int) -> None:
        least = min(_UNRESERVED, self.concurrency)
        if self.concurrency - sum(_reserved(but=function)) - asked < least:
            raise ApiError(
                "InvalidParameterValueException",
                "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
                f"below its minimum value of [{least}].",
            )

    def _all(self, service: str) -> list[dict[str, Any]]:
        if service == "lambda":
            rows = [(*_CONCURRENCY, self.concurrency)]
        elif service == "sagemaker":
            rows = [(name, NEW_ACCOUNT.get(name, ("L-00000000", 0))[0], one) for name, one in self._values.items()]
        elif service in _OTHERS:
            rows = [(name, code, value if self.new_account else _MUCH) for name, code, value in _OTHERS[service]]
        else:
            raise ApiError("NoSuchResourceException", f"The service {service} has no quotas in the embedded AWS.")
        named = [{"QuotaName": name, "QuotaCode": code, "Value": float(value)} for name, code, value in rows]
        return [{"ServiceCode": service, **one, "Unit": "None", "Adjustable": True} for one in named]

    def _get(self, call: Call) -> Response:
        for one in self._all(call.parameters["ServiceCode"]):
            if one["QuotaCode"] == call.parameters["QuotaCode"]:
                return json_answer({"Quota": one})
        raise ApiError("NoSuchResourceException", "The request failed because the specified quota does not exist.")

    def _list(self, call: Call) -> Response:
        return json_answer({"Quotas": self._all(call.parameters["ServiceCode"])})

    def _account_settings(self, _call: Call) -> Response:
        limit = {"ConcurrentExecutions": self.concurrency}
        limit["UnreservedConcurrentExecutions"] = self.concurrency - sum(_reserved())
        usage = {"FunctionCount": len([*lambda_backends[ACCOUNT][REGION].list_functions()])}
        return json_answer({"AccountLimit": limit, "AccountUsage": usage})


def _reserved(but: str = "") -> list[int]:
    """Return the reserved concurrency of each function that has one."""
    functions = lambda_backends[ACCOUNT][REGION].list_functions()
    return [int(one.reserved_concurrency) for one in functions if one.reserved_concurrency and one.function_name != but]


def _exceeded(name: str, limit: int, used: int, asked: int) -> ApiError:
    return ApiError(
        "ResourceLimitExceeded",
        f"The account-level service limit '{name}' is {limit} Instances, with current utilization of {used} Instances "
        f"and a request delta of {asked} Instances. Please use AWS Service Quotas to request an increase for this "
        "quota. If AWS Service Quotas is not available, contact AWS support to request an increase for this quota.",
    )


def _uses(call: Call) -> Iterator[Use]:
    if call.operation in ("CreateEndpoint", "UpdateEndpoint"):
        yield from _of_endpoints(call.parameters["EndpointConfigName"])
    elif call.operation == "CreateProcessingJob":
        yield from _of_jobs("processing", call.parameters, parallel=1)
    elif call.operation == "CreateTrainingJob":
        yield from _of_jobs(_kind(call.parameters), call.parameters, parallel=1)
    elif call.operation == "CreateHyperParameterTuningJob":
        parallel = call.parameters["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"]
        definition = call.parameters["TrainingJobDefinition"]
        yield from _of_jobs(_kind(definition), definition, parallel=int(parallel))


def _kind(training: Mapping[str, Any]) -> str:
    return "spot training" if training.get("EnableManagedSpotTraining") else "training"


def _of_jobs(kind: str, request: Mapping[str, Any], parallel: int) -> Iterator[Use]:
    instance_type, count = _cluster(request)
    running = _running(kind)
    yield f"{instance_type} for {kind} job usage", running[instance_type], count * parallel
    yield f"Number of instances across all {kind} jobs", running.total(), count * parallel


def _cluster(request: Mapping[str, Any]) -> tuple[str, int]:
    config = request.get("ResourceConfig") or request["ProcessingResources"]["ClusterConfig"]
    return config["InstanceType"], int(config["InstanceCount"])


def _running(kind: str) -> Counter[str]:
    """Return the instances of all jobs in progress of one kind, by type."""
    noun = "Processing" if kind == "processing" else "Training"
    sagemaker = client("sagemaker")
    listed = getattr(sagemaker, f"list_{noun.lower()}_jobs")()[f"{noun}JobSummaries"]
    found: Counter[str] = Counter()
    for one in listed:
        about = getattr(sagemaker, f"describe_{noun.lower()}_job")(**{f"{noun}JobName": one[f"{noun}JobName"]})
        if about[f"{noun}JobStatus"] == "InProgress" and (kind == "processing" or _kind(about) == kind):
            instance_type, count = _cluster(about)
            found[instance_type] += count
    return found


def _of_endpoints(config: str) -> Iterator[Use]:
    """Yield what a new fleet takes: while an endpoint is updated, its old fleet stays beside the new one."""
    served: Counter[str] = Counter()
    for one in client("sagemaker").list_endpoints()["Endpoints"]:
        about = client("sagemaker").describe_endpoint(EndpointName=one["EndpointName"])
        served += _fleet(about["EndpointConfigName"])
    asked = _fleet(config)
    for instance_type, count in asked.items():
        yield f"{instance_type} for endpoint usage", served[instance_type], count
    yield "Maximum number of instances per endpoint", 0, asked.total()
    yield "Number of instances across active endpoints", served.total(), asked.total()


def _fleet(config: str) -> Counter[str]:
    variants = client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    found: Counter[str] = Counter()
    for one in variants:
        found[one["InstanceType"]] += int(one["InitialInstanceCount"])
    return found
