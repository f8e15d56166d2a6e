"""Access to AWS: clients, the outputs of deployed stacks, and AWS's errors as sentences.

boto3 reads `AWS_ENDPOINT_URL`, which leads to the rehearsal's embedded AWS; nothing here knows which of them it is.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kennel.errors import KennelError

Client = Callable[[str], Any]
"""Makes a boto3 client of a service, such as `client` below."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
# A key that is not, or no longer, known, in the words of the several services; the last two are IAM Identity Center's.
_UNKNOWN = {"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidAccessKeyId"}
_UNKNOWN |= {"ForbiddenException", "UnauthorizedException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


def client(service: str) -> Any:
    """Make a boto3 client from the environment; raise KennelError without a region or with an unknown profile."""
    # boto3 costs 0.15 s to import: `kennel --help` must not pay for it.
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, max_pool_connections=16)
    with aws_errors():
        # botocore itself reads AWS_DEFAULT_REGION alone.
        return boto3.client(service, region_name=os.environ.get("AWS_REGION") or None, config=config)


def output(stage: str, stack: str, key: str) -> str:
    """Return one output of a stack of the stage; raise KennelError where the stack or the output is missing."""
    name = stack_name(stage, stack)
    with aws_errors(absent=f"Stack {name} is not deployed{_where()}: run `make deploy STAGE={stage}` first."):
        described = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    found = {one["OutputKey"]: str(one["OutputValue"]) for one in described.get("Outputs", [])}
    if key not in found:
        raise KennelError(f"Stack {name} has no output {key}: deploy this version with `make deploy STAGE={stage}`.")
    return found[key]


def stack_name(stage: str, stack: str) -> str:
    """Return `<prefix>-<stage>-<stack>`; raise KennelError for what cannot be a stage's name.

    An app with another `stack_prefix` in stacks/config.py is named by the environment variable KENNEL_STACK_PREFIX.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", stage):
        raise KennelError(f"{stage!r} is no stage name; the stages of this app are Dev and Prod.")
    return f"{os.environ.get('KENNEL_STACK_PREFIX', 'Kennel')}-{stage}-{stack}"


@contextmanager
def aws_errors(absent: str = "") -> Iterator[None]:
    """Turn what botocore raises into a KennelError; `absent` is said when CloudFormation knows no such stack."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except ClientError as error:
        raise KennelError(_service_error(error.response.get("Error", {}), error.operation_name, absent)) from error
    except BotoCoreError as error:
        raise KennelError(_client_error(error)) from error


@contextmanager
def suppressed(*codes: str) -> Iterator[None]:
    """Pass over AWS's errors with these codes, as contextlib.suppress does over exceptions."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in codes:
            raise


def _service_error(error: dict[str, str], operation: str, absent: str) -> str:
    code, message = error.get("Code", "Unknown"), error.get("Message", "").strip()
    if absent and code == "ValidationError" and "does not exist" in message:
        return absent
    if code in _EXPIRED:
        return "The AWS credentials have expired: sign in again (`aws sso login`) and repeat the command."
    if code in _UNKNOWN:
        return f"AWS does not know these credentials ({code}): sign in again (`aws sso login`) and repeat the command."
    if code in _DENIED:
        return f"AWS denied {operation} to these credentials: {message or code}."
    return f"AWS refused {operation}: {message or 'no reason given'} ({code})."


def _client_error(error: Exception) -> str:
    kind = type(error).__name__
    if kind == "NoRegionError":
        return "No AWS region is set: `export AWS_REGION=eu-west-1`, or name a profile that has one in AWS_PROFILE."
    if kind in {"NoCredentialsError", "PartialCredentialsError"}:
        return "No AWS credentials were found: sign in (`aws sso login`) and set AWS_PROFILE, or set AWS_ACCESS_KEY_ID."
    if kind in {"EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"}:
        rehearsed = " Is the rehearsal that printed this AWS_ENDPOINT_URL still running?"
        return f"{error}." + (rehearsed if "AWS_ENDPOINT_URL" in os.environ else " Is there a network?")
    return f"{str(error).rstrip('.')}."


def _where() -> str:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return f" in {region}" if region else ""
