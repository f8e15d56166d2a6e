"""The gateway before moto: it refuses whoever is not a program with a key, and answers some operations itself."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.types import StartResponse

from botocore.exceptions import UnknownServiceError  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Environ, Handler, error_answer, parse, service_of
from kennel.rehearsal.cloud.iam import signature

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
            signed = signature.read(environ)
            service = service_of(signed.service, environ["PATH_INFO"])
            role, body = signature.check(signed, environ)
            if signed.on_s3:
                _leave_no_doubt(environ, signed)
            if _CLOSED.match(environ["PATH_INFO"]):
                raise ApiError("AccessDenied", "This path is closed.", 403)
            call = parse(environ, service, signed.region, role, body)
            self._permit(call)
            handler = self._handlers.get((call.service, call.operation))
            return handler(call) if handler else None
        except ApiError as error:
            return _refusal(service, error)
        except HTTPException as error:  # half a body, for example
            return _refusal(service, ApiError("InvalidRequest", str(error), error.code or 400))
        except Exception as error:
            _log.exception("a call of %s failed inside the embedded AWS", service)
            fault = ApiError("InternalFailure", f"embedded AWS: {type(error).__name__}: {error}", 500)
            return _refusal(service, fault)


def _refuse_browsers(environ: Environ) -> None:
    """Refuse what comes from a web page, or by a name that leads here by DNS rebinding, before anything is read."""
    if not _LOOPBACK.fullmatch(environ.get("HTTP_HOST", "")) or not environ["RAW_URI"].startswith("/"):
        raise ApiError("AccessDenied", "The embedded AWS answers as localhost only.", 403)
    if "HTTP_ORIGIN" in environ:
        raise ApiError("AccessDenied", "The embedded AWS answers programs, not web pages.", 403)


def _leave_no_doubt(environ: Environ, signed: signature.Signature) -> None:
    """Name the bucket in the path and the service in a header, so that moto cannot read the request otherwise."""
    found = _LOOPBACK.fullmatch(environ["HTTP_HOST"])
    if found and found["bucket"]:
        environ["HTTP_HOST"] = f"localhost{found['port'] or ''}"
        for name in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            environ[name] = f"/{found['bucket']}{environ[name]}"
    scope = f"{signed.access_key}/{signed.time[:8]}/{signed.region}/{signed.service}/aws4_request"
    environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}"


def _refusal(service: str, error: ApiError) -> Response:
    try:
        return error_answer(service, error)
    except UnknownServiceError:
        return error_answer("s3", error)
