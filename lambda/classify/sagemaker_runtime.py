"""Calls InvokeEndpoint with botocore's signer and a urllib3 pool, which both come with Lambda's runtime.

boto3's client would take as long again as everything else until the first answer (docs/decisions.md). InvokeEndpoint
changes nothing, so a request whose answer was lost is sent again, whether or not the endpoint had read it.
"""

import gzip
import json
import os
import random
import ssl
import time
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace  # for the keys, as botocore.credentials would take 7 ms more to import
from typing import NoReturn
from urllib.parse import quote, urlsplit

import botocore  # type: ignore[import-untyped]
import urllib3
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.endpoint_provider import EndpointProvider  # type: ignore[import-untyped]

from classify import errors
from classify.deadline import Deadline
from classify.image_types import SUPPORTED

_BUSY = "The model has too much to do; try again in a moment."
_BROKEN = "The model could not answer; try again, and look at the endpoint's log if that does not help."
_NO_MODEL = "No model is released yet: run the training pipeline, then approve the model package it makes."

# What an error answer means, by its code: the error, its text, and whether another attempt may help. A ModelError has
# the container's status as its detail, other codes have a part of their message.
_ERRORS: dict[str, tuple[type[errors.ClassifyError], str, bool]] = {
    "ModelError 400": (errors.NotAnImage, f"The image cannot be decoded; it may be damaged. {SUPPORTED}", False),
    "ModelError 413": (errors.TooLarge, "The image has too many bytes or pixels; send a smaller one.", False),
    "ModelError 415": (errors.UnsupportedImage, f"Images of this type are not supported. {SUPPORTED}", False),
    "ModelError 429": (errors.EndpointThrottled, _BUSY, True),
    "ModelError 503": (errors.EndpointUnavailable, _BUSY, True),
    "ModelError 4xx": (errors.BadAnswer, "The model refused the function's call; look at the endpoint's log.", False),
    "ModelError": (errors.EndpointUnavailable, _BROKEN, False),  # the same bytes would most likely break it again
    "ValidationError not found": (errors.NoModel, _NO_MODEL, False),
    "InvalidSignatureException expired": (errors.EndpointUnavailable, _BROKEN, True),  # signed before the sandbox was
    "RequestExpired expired": (errors.EndpointUnavailable, _BROKEN, True),  # frozen (aws-sdk-js-v3#7605)
    "ThrottlingException": (errors.EndpointThrottled, _BUSY, True),  # with status 400
    "429": (errors.EndpointThrottled, _BUSY, True),
    "5xx": (errors.EndpointUnavailable, _BROKEN, True),
}


class SageMakerRuntime:
    """A client that keeps one connection between calls, which are made one at a time, as Lambda does."""

    def __init__(self) -> None:
        self.region = os.environ.get("AWS_REGION") or os.environ["AWS_DEFAULT_REGION"]
        self.url = address(self.region)
        self.pool, self.last_used = _pool(self.url), time.monotonic()

    def invoke(self, endpoint: str, body: bytes, media_type: str, deadline: Deadline, request_id: str) -> bytes:
        """Return the container's answer. Raise EndpointError, ImageError or UnexpectedResponse.

        `request_id` is the InferenceId by which data capture knows the request; empty: it gets none.
        """
        about = {"Content-Type": media_type, "Accept": "application/json"}
        if request_id:
            about["X-Amzn-SageMaker-Inference-Id"] = request_id
        for attempt, longest in enumerate((0.1, 0.2, 0.4)):  # seconds before the next attempt
            try:
                return self._attempt(endpoint, body, about, deadline)
            except errors.EndpointError as error:
                # A kept connection that was closed meanwhile costs no pause; random ones keep callers apart.
                is_stale = not attempt and isinstance(error.__cause__, urllib3.exceptions.ProtocolError)
                pause = 0.0 if is_stale else random.uniform(0, longest)
                if not error.retryable or pause >= deadline.remaining():
                    raise
                time.sleep(pause)
        return self._attempt(endpoint, body, about, deadline)

    def _attempt(self, endpoint: str, body: bytes, about: dict[str, str], deadline: Deadline) -> bytes:
        if time.monotonic() - self.last_used > 30:  # balancers drop silent connections unsaid (botocore#2916)
            self.pool.close()
            self.pool = _pool(self.url)
        path, headers = self._signed(endpoint, body, about)
        # Without urllib3's retries, which would send the old signature and read no more of an answer than its status.
        options = {"retries": False, "enforce_content_length": True}
        try:
            timeout = urllib3.Timeout(connect=2.0, total=deadline.timeout())
            response = deadline.run(lambda: self.pool.urlopen("POST", path, body, headers, timeout=timeout, **options))
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError) as error:
            raise errors.EndpointUnavailable("The model did not answer in time; try again.", retryable=True) from error
        except urllib3.exceptions.HTTPError as error:
            raise errors.EndpointUnavailable("The model could not be reached; try again.", retryable=True) from error
        self.last_used = time.monotonic()
        if response.status < 300:
            return bytes(response.data)
        raise_error(response.status, response.headers.get("x-amzn-errortype", ""), response.data)

    def _signed(self, endpoint: str, body: bytes, about: dict[str, str]) -> tuple[str, dict[str, str]]:
        url = f"{self.url}/endpoints/{quote(endpoint, safe='')}/invocations"
        headers = {"Host": urlsplit(url).netloc, **about}
        request = AWSRequest("POST", url, headers | {"User-Agent": "Kennel"}, body)
        keys = {"access_key": os.environ["AWS_ACCESS_KEY_ID"], "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
        credentials = SimpleNamespace(**keys, token=os.environ.get("AWS_SESSION_TOKEN"))
        SigV4Auth(credentials, "sagemaker", self.region).add_auth(request)
        return urlsplit(url).path, dict(request.headers)


def address(region: str) -> str:
    """Return the URL that boto3 would find; raise EndpointResolutionError where its settings are in conflict."""
    switched_on = {name for name, value in os.environ.items() if value.lower() == "true"}
    url = os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") or os.environ.get("AWS_ENDPOINT_URL") or None
    data = Path(botocore.__file__).with_name("data")
    file = max(data.glob("sagemaker-runtime/*/endpoint-rule-set-1.json*"))  # compressed in most builds of botocore
    rules = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    provider = EndpointProvider(json.loads(rules), json.loads((data / "partitions.json").read_bytes()))
    endpoint = provider.resolve_endpoint(
        Region=region,
        Endpoint=None if "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" in switched_on else url,
        UseFIPS="AWS_USE_FIPS_ENDPOINT" in switched_on,
        UseDualStack="AWS_USE_DUALSTACK_ENDPOINT" in switched_on,
    )
    return str(endpoint.url).rstrip("/")


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the sandbox's context for all hosts: reading the certificate authorities takes some 20 ms."""
    return ssl.create_default_context()


def _pool(url: str) -> urllib3.HTTPConnectionPool:
    options = {"ssl_context": tls_context(), "cert_reqs": ssl.CERT_REQUIRED} if url.startswith("https:") else {}
    return urllib3.connection_from_url(url, maxsize=1, **options)


def raise_error(status: int, error_type: str, body: bytes) -> NoReturn:
    """Raise a ClassifyError, or UnexpectedResponse; `error_type` is the header x-amzn-ErrorType."""
    try:
        fields = dict(json.loads(body))
    except (ValueError, TypeError, RecursionError):
        fields = {}
    # As botocore reads it: the header before the body, and no more than the name.
    code = (error_type or str(fields.get("__type") or fields.get("code") or "")).split(":")[0].split("#")[-1]
    message = str(fields.get("message") or fields.get("Message") or "")
    if code == "ModelError":
        original = str(fields.get("OriginalStatusCode"))
        message += f" (the container answered {original}: {fields.get('OriginalMessage')})"
        names = [f"{code} {original}", f"{code} {original[:1]}xx", code]
    else:
        details = [f"{code} {detail}" for detail in ("not found", "expired") if detail in message.lower()]
        names = [*details, code, str(status), f"{status // 100}xx"]
    response = errors.UnexpectedResponse(f"{code} ({status}): {message}")
    for kind, text, retryable in (_ERRORS[name] for name in names if name in _ERRORS):
        raise kind(text, retryable) from response
    raise response
