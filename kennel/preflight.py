"""`kennel preflight`: what would make a deployment, or the first run and release after it, fail in this account.

It reads the synthesized templates (cdk.out) and asks the account; it changes nothing. Quotas are looked up by the names
and codes of Service Quotas; where an account's differ or may not be read, the check is unknown and fails nothing.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kennel.assembly import stacks_of
from kennel.aws import Client, aws_errors, client
from kennel.console import AsJson, Stage, print_json
from kennel.rehearsal.jobs.language import resolve_parameters
from kennel.train.launch import longest_jobs

Templates = dict[str, dict[str, Any]]
"""Stack name -> template."""

_UNRESERVED = 100  # Lambda keeps at least so many concurrent executions unreserved
_COLOURS = {"ok": "green", "fails": "red", "tight": "yellow", "unknown": "yellow"}
# Types whose name is literal, the property that holds it, and what asks the account for it.
_LITERAL = {
    "AWS::SageMaker::ModelPackageGroup": ("ModelPackageGroupName", "sagemaker", "describe_model_package_group"),
    "AWS::SageMaker::Pipeline": ("PipelineName", "sagemaker", "describe_pipeline"),
    "AWS::SageMaker::Endpoint": ("EndpointName", "sagemaker", "describe_endpoint"),
}
# Quotas that are counted over all types. Service Quotas' own codes.
_ACROSS_ENDPOINTS, _PER_ENDPOINT = "L-7A3DF611", "L-ED8DEE9B"
_ACROSS_JOBS = {"processing": "L-F311B08F", "training": "L-00C91CB5", "spot training": "L-93958082"}
_BUILDS, _GPU_CORES = "L-2DC20C30", "L-DB2E81BA"


@dataclass(frozen=True)
class Check:
    """One line of the table. `verdict`: ok, fails, tight (enough now, not at full scale) or unknown."""

    what: str
    needs: str
    has: str
    verdict: str
    advice: str = ""


def preflight(
    stage: Stage = "Dev",
    assembly: Annotated[Path, typer.Option(help="The synthesized app.")] = Path("cdk.out"),
    as_json: AsJson = False,
) -> None:
    """Say what in this account would make a deployment, a run or a release fail; exit code 1 if something would.

    [bold]Examples[/]

      make synth && kennel preflight --stage Prod
    """
    checks = examine(stage, assembly, client)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        _show(checks, stage)
    if any(check.verdict == "fails" for check in checks):
        raise typer.Exit(1)


def examine(stage: str, assembly: Path, client: Client) -> list[Check]:
    """Return all checks of `stage`; `client` makes a boto3 client of a service."""
    stacks = stacks_of(assembly, stage)
    templates = {stack.name: stack.read() for stack in stacks}
    with aws_errors():
        cloudformation = client("cloudformation")
        deployed = {name: _stack(cloudformation, name) for name in templates}
        fresh = {name: template for name, template in templates.items() if deployed[name] is None}
        checks = [_owner(stage, name, about) for name, about in deployed.items() if about is not None]
        return [
            _bootstrap(client("ssm"), max(stack.bootstrap_version for stack in stacks)),
            *checks,
            *_leftovers(fresh, client),
            *_concurrency(templates, [name for name in templates if name not in fresh], client),
            *_shifts({name: template for name, template in templates.items() if name not in fresh}, client),
            *_quotas(templates, client),
        ]


def _properties(templates: Templates, type_: str) -> Iterator[dict[str, Any]]:
    for template in templates.values():
        for resource in template["Resources"].values():
            if resource["Type"] == type_:
                yield resource.get("Properties", {})


def _found(call: Callable[[], Any]) -> Any:
    """Return the answer of `call`, None where AWS knows no such thing or does not say."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        return call()
    except ClientError:
        return None


def _stack(cloudformation: Any, name: str) -> Any:
    described = _found(lambda: cloudformation.describe_stacks(StackName=name))
    return described["Stacks"][0] if described else None


def _owner(stage: str, name: str, about: dict[str, Any]) -> Check:
    if {"Key": "kennel:stage", "Value": stage} in about.get("Tags", []):
        return Check(f"stack {name}", "ours or none", "ours", "ok")
    advice = "A deployment would replace another team's stack: choose another stack_prefix in stacks/config.py."
    return Check(f"stack {name}", "ours or none", "somebody else's", "fails", advice)


def _bootstrap(ssm: Any, needs: int) -> Check:
    answer = _found(lambda: ssm.get_parameter(Name="/cdk-bootstrap/hnb659fds/version"))
    version = int(answer["Parameter"]["Value"]) if answer else 0
    advice = "Run `cdk bootstrap` once in this account and region."
    verdict = "ok" if version >= needs else "fails"
    return Check("bootstrap stack", f"version {needs}", f"version {version}" if version else "none", verdict, advice)


def _leftovers(fresh: Templates, client: Client) -> Iterator[Check]:
    """Check the literal names of stacks that are not deployed: what an earlier deployment left is in their way."""
    for type_, (name_of, service, operation) in _LITERAL.items():
        for properties in _properties(fresh, type_):
            name = properties[name_of]
            describe = getattr(client(service), operation)
            there = _found(partial(describe, **{name_of: name}))
            yield _free(f"{type_.rsplit('::', 1)[-1]} {name}", there)
    for properties in _properties(fresh, "AWS::Logs::LogGroup"):
        if name := properties.get("LogGroupName"):
            listed = client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
            yield _free(f"LogGroup {name}", [one for one in listed if one["logGroupName"] == name])


def _free(what: str, there: Any) -> Check:
    advice = (
        "An earlier deployment kept it, or it is another team's: delete it, or change the stage's name in config.py."
    )
    return Check(what, "none", "one", "fails", advice) if there else Check(what, "none", "none", "ok")


def _concurrency(templates: Templates, deployed: list[str], client: Client) -> Iterator[Check]:
    needs = _reserved(templates)
    if not needs:
        return
    get = client("cloudformation").get_template
    # What the stage has set aside already comes back when it is deployed again.
    before = _reserved({name: get(StackName=name)["TemplateBody"] for name in deployed})
    limit = client("lambda").get_account_settings()["AccountLimit"]
    has = int(limit["UnreservedConcurrentExecutions"]) + before - _UNRESERVED
    advice = (
        "Ask for more Lambda concurrent executions (L-B99A9384), or set classify.reserved_concurrency lower or None."
    )
    what = f"Lambda concurrency to reserve ({_UNRESERVED} stay unreserved)"
    yield Check(what, str(needs), str(max(has, 0)), "ok" if has >= needs else "fails", advice)


def _shifts(templates: Templates, client: Client) -> Iterator[Check]:
    """Check the aliases whose traffic CodeDeploy shifts: Lambda refuses another provisioned concurrency meanwhile.

    So the update fails, and its rollback as well: https://github.com/aws/serverless-application-model/issues/1353
    """
    for name, template in templates.items():
        shifting = _aliases(template, "UpdatePolicy")
        before = _aliases(client("cloudformation").get_template(StackName=name)["TemplateBody"]) if shifting else {}
        for id_ in shifting.keys() & before.keys():
            changed = [
                what
                for what, member in (("code", "FunctionVersion"), ("concurrency", "ProvisionedConcurrencyConfig"))
                if shifting[id_].get(member) != before[id_].get(member)
            ]
            verdict = "ok" if len(changed) < 2 else "fails"
            advice = "Deploy the code (or other settings of the function) with the provisioned concurrency as it is, "
            advice += "then the concurrency by itself: Lambda refuses it while traffic shifts to a new version."
            has = " and ".join(changed) or "neither"
            yield Check(f"alias of {name}", "code or concurrency", has, verdict, advice)


def _aliases(template: dict[str, Any], member: str = "Type") -> dict[str, dict[str, Any]]:
    """Return the properties of the template's aliases that have `member`, by logical id."""
    found = {id_: one for id_, one in template["Resources"].items() if one["Type"] == "AWS::Lambda::Alias"}
    return {id_: one["Properties"] for id_, one in found.items() if member in one}


def _reserved(templates: Templates) -> int:
    functions = _properties(templates, "AWS::Lambda::Function")
    return sum(int(each.get("ReservedConcurrentExecutions", 0)) for each in functions)


def _quotas(templates: Templates, client: Client) -> Iterator[Check]:
    quotas = client("service-quotas")
    sagemaker = _table(quotas, "sagemaker")
    yield from _endpoints(templates, sagemaker)
    yield from _jobs(templates, sagemaker)
    for properties in _properties(templates, "AWS::SageMaker::NotebookInstance"):
        yield _quota(f"{properties['InstanceType']} for notebook instance usage", sagemaker, 1)
    if next(_properties(templates, "AWS::CodeBuild::Project"), None) is not None:
        yield _quota("CodeBuild: concurrent builds on Linux/Medium", _table(quotas, "codebuild"), 1, code=_BUILDS)
    for properties in _properties(templates, "AWS::EC2::LaunchTemplate"):
        type_ = properties["LaunchTemplateData"]["InstanceType"]
        if type_.startswith(("g", "vt")):
            # Of the smallest; a deployment launches none.
            yield _quota(f"EC2: vCPUs of G and VT instances ({type_})", _table(quotas, "ec2"), 0, 4, code=_GPU_CORES)


def _endpoints(templates: Templates, quotas: dict[str, float]) -> Iterator[Check]:
    """Check the endpoint's instances: each release starts a second fleet beside the first."""
    scaled = [
        int(each["MaxCapacity"]) for each in _properties(templates, "AWS::ApplicationAutoScaling::ScalableTarget")
    ]
    for config in _properties(templates, "AWS::SageMaker::EndpointConfig"):
        variant = config["ProductionVariants"][0]
        least = 2 * int(variant["InitialInstanceCount"])
        most = 2 * max([int(variant["InitialInstanceCount"]), *scaled])
        yield _quota(f"{variant['InstanceType']} for endpoint usage", quotas, least, most)
        yield _quota("Instances across active endpoints", quotas, least, most, code=_ACROSS_ENDPOINTS)
        yield _quota("Instances per endpoint", quotas, least, most, code=_PER_ENDPOINT)


def _jobs(templates: Templates, quotas: dict[str, float]) -> Iterator[Check]:
    """Check the instances of the pipeline's jobs at its defaults; those of a spot run are needed by such runs alone."""
    for properties in _properties(templates, "AWS::SageMaker::Pipeline"):
        definition = _definition(properties["PipelineDefinition"]["PipelineDefinitionBody"])
        values = resolve_parameters(definition, {"DataManifest": "any"})
        prepare, train, _ = longest_jobs(definition, values)
        for use, job in (("processing", prepare), ("training", train)):
            yield _quota(f"{job.instance_type} for {use} job usage", quotas, job.instances)
            yield _quota(f"Instances across all {use} jobs", quotas, job.instances, code=_ACROSS_JOBS[use])
        use = "spot training"
        yield _quota(f"{train.instance_type} for {use} job usage", quotas, 0, train.instances)
        yield _quota(f"Instances across all {use} jobs", quotas, 0, train.instances, code=_ACROSS_JOBS[use])


def _definition(body: Any) -> Any:
    """Return the pipeline's definition; what only CloudFormation knows reads `?`."""
    parts = [body] if isinstance(body, str) else body["Fn::Join"][1]
    return json.loads("".join(part if isinstance(part, str) else "?" for part in parts))


def _table(quotas: Any, service: str) -> dict[str, float]:
    """Return the values of a service's quotas by name and by code, empty where they may not be read."""
    found: dict[str, float] = {}
    for operation in ("list_aws_default_service_quotas", "list_service_quotas"):  # the applied value wins
        pages = quotas.get_paginator(operation).paginate(ServiceCode=service)
        for one in _found(partial(list, pages.search("Quotas[]"))) or ():
            found |= {one["QuotaName"]: one["Value"], one["QuotaCode"]: one["Value"]}
    return found


def _quota(what: str, quotas: dict[str, float], needs: int, most: int = 0, *, code: str = "") -> Check:
    """Return the check of one quota: below `needs` something fails, below `most` it does at full scale only."""
    has = quotas.get(code or what)
    wanted = f"{needs}, {most} at full scale" if most > needs else str(needs)
    if has is None:
        return Check(what, wanted, "?", "unknown", "Service Quotas did not say: look there.")
    verdict = "fails" if has < needs else "tight" if has < most else "ok"
    advice = f"Ask for {max(needs, most)} in Service Quotas{f' ({code})' if code else ''}; allow half an hour."
    return Check(what, wanted, f"{has:g}", verdict, advice)


def _show(checks: list[Check], stage: str) -> None:
    console, table = Console(highlight=False), Table(box=None, pad_edge=False)
    for title in ("Check", "needs", "has", ""):
        table.add_column(title)
    for check in checks:
        colour = _COLOURS[check.verdict]
        table.add_row(escape(check.what), check.needs, check.has, f"[{colour}]{check.verdict}[/]")
    console.print(table)
    troubled = [check for check in checks if check.verdict != "ok"]
    for check in troubled:
        console.print(f"→ {check.what}: {check.advice}", markup=False, soft_wrap=True)
    if not troubled:
        console.print(f"→ Nothing stands in the way: `make deploy STAGE={stage}`.", markup=False, style="bold")
