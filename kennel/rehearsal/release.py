"""From a registered model to an endpoint that answers: approval, and the release that it sets off."""

from __future__ import annotations

from typing import Any

from kennel.errors import KennelError
from kennel.rehearsal.follow import Waiting

_SECONDS = 120


def registered(sagemaker: Any, group: str) -> dict[str, Any]:
    """The newest model package of `group`, described."""
    newest = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=1
    )["ModelPackageSummaryList"]
    if not newest:
        raise KennelError(f"The pipeline registered no model in {group}.")
    about: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=newest[0]["ModelPackageArn"])
    return about


def approve(sagemaker: Any, package: dict[str, Any]) -> bool:
    """Approve `package` as an operator would, unless the stage does it by itself; say whether it was done."""
    if package["ModelApprovalStatus"] == "Approved":
        return False
    sagemaker.update_model_package(ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Approved")
    return True


def wait_until_served(
    cloudformation: Any, sagemaker: Any, waiting: Waiting, *, stack: str, endpoint: str, package: str
) -> None:
    """Wait until the promote Lambda's stack update has ended and the endpoint serves `package`.

    Raises KennelError with CloudFormation's or SageMaker's reason when it ends otherwise.
    """

    def ended() -> Any:
        about = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        asked = {one["ParameterKey"]: one["ParameterValue"] for one in about.get("Parameters", [])}
        status = about["StackStatus"]
        if "ROLLBACK" in status or "FAILED" in status:
            raise KennelError(f"The release failed, {stack} is {status}: {about.get('StackStatusReason', 'no reason')}")
        return asked.get("ModelPackageArn") == package and status.endswith("_COMPLETE")

    waiting.wait("The release by the promote Lambda", ended, seconds=_SECONDS)
    about = sagemaker.describe_endpoint(EndpointName=endpoint)
    if about["EndpointStatus"] != "InService":
        raise KennelError(
            f"Endpoint {endpoint} is {about['EndpointStatus']}: {about.get('FailureReason', 'no reason')}"
        )
