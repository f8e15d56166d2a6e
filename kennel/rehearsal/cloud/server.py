"""The embedded AWS: moto's server in this process behind a gateway that authorizes each call, on loopback."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto.core.models import botocore_stubber  # noqa: F401  (importing moto's core first settles its own import cycles)
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from kennel.errors import KennelError
from kennel.rehearsal.cloud import moto_patches
from kennel.rehearsal.cloud.api import Answer, ApiError, Call, Environ, Handler, Start, error_answer, parse
from kennel.rehearsal.cloud.clients import ADMIN, REGION, admin, create_client, use_server
from kennel.rehearsal.cloud.events import EventBus
from kennel.rehearsal.cloud.iam.authorizer import Authorizer
from kennel.rehearsal.cloud.lambda_functions import Functions
from kennel.rehearsal.cloud.sagemaker.control_plane import SageMaker
from kennel.rehearsal.interfaces import DataPlane

_SESSION_S = 43_200
_log = logging.getLogger(__name__)


class Cloud:
    """One embedded AWS. Use it as a context manager, or call start() and stop(). One at a time in a process.

    `work` holds unpacked functions; `port` 0 takes a free one. Raises KennelError when the port is in use.
    """

    def __init__(self, data_plane: DataPlane, work: Path, *, port: int = 0) -> None:
        self.data_plane, self.work, self.port = data_plane, work, port
        self.pipeline_overrides: dict[str, str] = {}
        self.authorizer = Authorizer()
        self.functions = Functions(data_plane, work / "functions", self.client)
        self.bus = EventBus(self.client, self.functions.invoke_from, self.pipeline_overrides)
        self.sagemaker = SageMaker(data_plane, self.bus.publish)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._sessions: dict[str, dict[str, str]] = {}
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._creating = threading.RLock()

    @property
    def url(self) -> str:
        """The server's URL, by name: moto takes the first label of an IP address in a template's URL for a bucket."""
        if self._server is None:
            raise RuntimeError("the embedded AWS is not started")
        return f"http://localhost:{self._server.server_port}"

    @property
    def denied(self) -> list[str]:
        """What was refused to a role so far, each as 'role may not action on resource'."""
        return self.authorizer.denied

    def start(self) -> None:
        """Serve on `port`, empty: moto's state of this process is reset."""
        moto_patches.apply()
        moto_patches.send_object_events_to(self.bus.object_created)
        moto_api_backend.reset()
        (self.work / "functions").mkdir(parents=True, exist_ok=True)
        gateway = Gateway(DomainDispatcherApplication(create_backend_app), self.authorizer.permit, self._handlers())
        try:
            self._server = make_server("127.0.0.1", self.port, gateway, True, request_handler=_QuietHandler)
        except (OSError, SystemExit) as error:
            raise KennelError(f"Port {self.port} is in use: choose another, or 0 for any free one.") from error
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        use_server(self.url)

    def stop(self) -> None:
        """End the server; safe to call twice."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, service: str, role_arn: str | None = None) -> Any:
        """Return a boto3 client as admin, or with credentials of that role; the same one for the same arguments."""
        if role_arn is None:
            return admin(service)
        with self._creating:
            if (service, role_arn) not in self._clients:
                self._clients[service, role_arn] = create_client(service, self.environment(role_arn))
            return self._clients[service, role_arn]

    def environment(self, role_arn: str | None = None) -> dict[str, str]:
        """Return the AWS_* variables by which any client of AWS reaches this one, as admin or as that role."""
        place = {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        return {**place, **(ADMIN if role_arn is None else self._assume(role_arn))}

    def _assume(self, role_arn: str) -> dict[str, str]:
        with self._creating:
            if role_arn not in self._sessions:
                found = admin("sts").assume_role(
                    RoleArn=role_arn, RoleSessionName="rehearsal", DurationSeconds=_SESSION_S
                )["Credentials"]
                self._sessions[role_arn] = {
                    "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
                    "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
                    "AWS_SESSION_TOKEN": found["SessionToken"],
                }
            return self._sessions[role_arn]

    def _handlers(self) -> dict[tuple[str, str], Handler]:
        own: dict[tuple[str, str], Handler] = {
            ("lambda", "Invoke"): self.functions.invoke,
            ("events", "PutEvents"): self.bus.put_events,
        }
        return {**own, **self.sagemaker.handlers()}


class Gateway:
    """A WSGI application before moto's: it permits or refuses each call, and answers some operations itself.

    `handlers` answer by (service, operation); `permit` raises ApiError; every other call goes to `moto`.
    """

    def __init__(self, moto: Any, permit: Callable[[Call], None], handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._moto, self._permit, self._handlers = moto, permit, handlers

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        call = parse(environ)
        answer = self._answer(call) if call else None
        if answer:
            return answer.send(start)
        answered: Iterable[bytes] = self._moto(environ, start)
        return answered

    def _answer(self, call: Call) -> Answer | None:
        """Return the refusal or the answer of a handler; None leaves the call to moto."""
        try:
            self._permit(call)
            handler = self._handlers.get((call.service, call.operation))
            return handler(call) if handler else None
        except ApiError as error:
            return error_answer(call.service, error)
        except Exception as error:
            _log.exception("%s:%s failed inside the embedded AWS", call.service, call.operation)
            fault = ApiError("InternalFailure", f"embedded AWS: {type(error).__name__}: {error}", 500)
            return error_answer(call.service, fault)


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        _log.debug(message, *args)
