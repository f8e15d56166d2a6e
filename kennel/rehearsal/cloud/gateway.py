"""The gateway before moto: it refuses whoever is not a program with a key, and answers some operations itself.

Who calls is the holder of an access key's secret, by the request's Signature Version 4: botocore's own signer makes the
signature anew. Of a body in signed chunks only the request's signature is checked.
"""

import hashlib
import hmac
import io
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse

from botocore.auth import S3SigV4Auth, SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.compat import HTTPHeaders  # type: ignore[import-untyped]
from moto.moto_server.werkzeug_app import BackendRequest
from moto.sts.models import sts_backends
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Environ, Handler, error_answer, parse, service_of
from kennel.rehearsal.cloud.clients import ACCOUNT, environment

_log = logging.getLogger(__name__)

# Any port: one may be forwarded (ssh -L). The name before .localhost is a bucket's.
_LOOPBACK = re.compile(r"(?:(?:(?P<bucket>[a-z0-9.-]+)\.)?localhost|127\.0\.0\.1|\[::1\])(?P<port>:[0-9]+)?")
# moto's own pages and the metadata service that it plays; it finds them by their path, whatever was signed.
_CLOSED = re.compile(r"/moto-api|/favicon\.ico|/latest/(meta-data|api)")


class Gateway:
    """A WSGI application before moto's.

    `handlers` answer by (service, operation); `permit` raises ApiError; every other call goes to `moto`.
    """

    def __init__(self, moto: Any, permit: Callable[[Call], None], handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._moto, self._permit, self._handlers = moto, permit, handlers

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        answered: Iterable[bytes] = (self._answer(environ) or self._moto)(environ, start)
        return answered

    def _answer(self, environ: Environ) -> Response | None:
        """Return the refusal or the answer of a handler; None leaves the call to moto."""
        service = "s3"  # a refusal takes its form as long as nobody known has named a service
        try:
            _refuse_browsers(environ)
            signed = _read_signature(environ)
            service = service_of(signed.service, environ["PATH_INFO"])
            role, body = _check_signature(signed, environ)
            if signed.on_s3:
                _leave_no_doubt(environ, signed)
            if _CLOSED.match(environ["PATH_INFO"]):
                raise ApiError("AccessDenied", "This path is closed.", 403)
            call = parse(environ, service, signed.region, role, body)
            self._permit(call)
            handler = self._handlers.get((call.service, call.operation))
            return handler(call) if handler else None
        except ApiError as error:
            return error_answer(service, error)
        except HTTPException as error:  # half a body, for example
            return error_answer(service, ApiError("InvalidRequest", str(error), error.code or 400))
        except Exception as error:
            _log.exception("a call of %s failed inside the embedded AWS", service)
            fault = ApiError("InternalFailure", f"embedded AWS: {type(error).__name__}: {error}", 500)
            return error_answer(service, fault)


def _refuse_browsers(environ: Environ) -> None:
    """Refuse what comes from a web page, or by a name that leads here by DNS rebinding, before anything is read."""
    if not _LOOPBACK.fullmatch(environ.get("HTTP_HOST", "")) or not environ["RAW_URI"].startswith("/"):
        raise ApiError("AccessDenied", "The embedded AWS answers as localhost only.", 403)
    if "HTTP_ORIGIN" in environ:
        raise ApiError("AccessDenied", "The embedded AWS answers programs, not web pages.", 403)


def _leave_no_doubt(environ: Environ, signed: "Signature") -> None:
    """Name the bucket in the path and the service in a header, so that moto cannot read the request otherwise."""
    found = _LOOPBACK.fullmatch(environ["HTTP_HOST"])
    if found and found["bucket"]:
        environ["HTTP_HOST"] = f"localhost{found['port'] or ''}"
        for name in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            environ[name] = f"/{found['bucket']}{environ[name]}"
    scope = f"{signed.access_key}/{signed.time[:8]}/{signed.region}/{signed.service}/aws4_request"
    environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}"


_HEADER = re.compile(r"AWS4-HMAC-SHA256 +Credential=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{64})")
_CREDENTIAL = re.compile(r"([^/]+)/([0-9]{8})/([^/]+)/([^/]+)/aws4_request")
_IN_QUERY = ("Credential", "SignedHeaders", "Signature", "Date", "Security-Token")  # each after X-Amz-
_NOT_HASHED = (  # what S3 takes in place of a body's hash
    "UNSIGNED-PAYLOAD",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
)
_XML = ("s3", "sts", "iam", "cloudformation", "ec2", "sns")  # services with errors of other names than those in JSON
_CLOCKS_APART_S = 900


@dataclass(frozen=True)
class Signature:
    """A request's signature as it came.

    `service` and `region` are those of the credential's scope, `headers` the names of what is signed. `time` is AWS's
    form of UTC, and `valid_s` counts from then on. `payload` is what the request says of its body's hash, or empty.
    """

    access_key: str
    region: str
    service: str
    headers: tuple[str, ...]
    value: str
    time: str
    valid_s: int
    token: str
    payload: str

    @property
    def on_s3(self) -> bool:
        return self.service == "s3"


def _read_signature(environ: Environ) -> Signature:
    """Return the request's signature, of its headers or, for S3, of its presigned URL; raise ApiError without one."""
    given, query = EnvironHeaders(environ), dict(_query(environ))
    seconds, payload, service = _CLOCKS_APART_S, given.get("X-Amz-Content-Sha256", ""), r"[^/]+"
    if "Authorization" in given:
        found = _HEADER.fullmatch(given["Authorization"])
        credential, names, value = found.groups() if found else ("", "", "")
        moment, token = given.get("X-Amz-Date", ""), given.get("X-Amz-Security-Token", "")
    elif "X-Amz-Signature" in query:
        credential, names, value, moment, token = (query.get(f"X-Amz-{name}", "") for name in _IN_QUERY)
        expires = query.get("X-Amz-Expires", "")
        seconds = int(expires) if re.fullmatch("[0-9]{1,6}", expires) else 0
        payload, service = payload or "UNSIGNED-PAYLOAD", "s3"
    else:
        raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    scope = _CREDENTIAL.fullmatch(credential)
    if not scope or scope[2] != moment[:8] or not re.fullmatch(service, scope[4]):
        raise ApiError("IncompleteSignature", "The request has no signature AWS4-HMAC-SHA256 that is known here.", 403)
    return Signature(scope[1], scope[3], scope[4], tuple(names.split(";")), value, moment, seconds, token, payload)


def _check_signature(signature: Signature, environ: Environ) -> tuple[str | None, bytes]:
    """Return the role that signed (None: the administrator) and the body, which stays readable for moto.

    The body is empty where only moto reads it. Raise ApiError for every signature that is not good now.
    """
    secret, role = _holder(signature)
    _check_time(signature)
    if signature.on_s3:
        _check_that_all_is_signed(signature, environ)
    payload, body = signature.payload, b""
    if not (signature.on_s3 and payload in _NOT_HASHED):
        body = BackendRequest(environ).get_data()
        environ["wsgi.input"] = io.BytesIO(body)
        payload = hashlib.sha256(body).hexdigest()
    if signature.payload not in ("", payload):
        raise ApiError("XAmzContentSHA256Mismatch", "The body is not the one whose hash was signed.", 400)
    if "host" not in signature.headers or not hmac.compare_digest(
        _made_anew(signature, environ, secret, payload), signature.value
    ):
        text = "The request signature we calculated does not match the signature you provided."
        raise ApiError("SignatureDoesNotMatch" if signature.service in _XML else "InvalidSignatureException", text, 403)
    return role, body


def _holder(signature: Signature) -> tuple[str, str | None]:
    """Return the secret of the key, and the role that it was given out for."""
    own = environment()
    if signature.access_key == own.get("AWS_ACCESS_KEY_ID"):
        return own["AWS_SECRET_ACCESS_KEY"], None
    for session in sts_backends[ACCOUNT]["aws"].assumed_roles:
        if session.access_key_id == signature.access_key and session.session_token == signature.token:
            return session.secret_access_key, str(session.role_arn)
    code = "InvalidAccessKeyId" if signature.on_s3 else "InvalidClientTokenId"
    raise ApiError(code, "The security token included in the request is invalid.", 403)


def _check_time(signature: Signature) -> None:
    try:
        signed = datetime.strptime(signature.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise ApiError("IncompleteSignature", f"{signature.time!r} is no time of a signature.", 403) from error
    now = datetime.now(UTC)
    if not -_CLOCKS_APART_S <= (now - signed).total_seconds() <= signature.valid_s:
        code = "RequestTimeTooSkewed" if signature.on_s3 else "InvalidSignatureException"
        raise ApiError(
            code, f"Signature expired: it was made at {signature.time}, and now is {now:%Y%m%dT%H%M%SZ}", 403
        )


def _check_that_all_is_signed(signature: Signature, environ: Environ) -> None:
    """Refuse X-Amz-* headers beside the signed ones, as S3 does: they could turn a presigned PUT into a copy."""
    signed = {f"HTTP_{name.upper().replace('-', '_')}" for name in signature.headers}
    if any(name.startswith("HTTP_X_AMZ_") and name not in signed for name in environ):
        raise ApiError("AccessDenied", "There were headers present in the request which were not signed", 403)


def _made_anew(signature: Signature, environ: Environ, secret: str, payload: str) -> str:
    """Return the signature of the request by `secret`, over the headers that it names."""
    given, headers = EnvironHeaders(environ), HTTPHeaders()
    for name in signature.headers:
        headers[name] = given.get(name, "")
    path = environ["RAW_URI"].partition("?")[0]
    query = [(name, value) for name, value in _query(environ) if name != "X-Amz-Signature"]
    request = AWSRequest(
        environ["REQUEST_METHOD"], f"http://localhost{path}", {"X-Amz-Content-SHA256": payload}, params=query
    )
    request.context["timestamp"] = signature.time
    keys = SimpleNamespace(access_key=signature.access_key, secret_key=secret, token=None)
    signer = (S3SigV4Auth if signature.on_s3 else SigV4Auth)(keys, signature.service, signature.region)
    signer.headers_to_sign = lambda _: headers
    made: str = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return made


def _query(environ: Environ) -> list[tuple[str, str]]:
    return parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
