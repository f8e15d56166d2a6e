"""The embedded AWS: moto's server in this process behind a gateway that authorizes each call, on loopback."""

import logging
import threading
from pathlib import Path
from typing import Any, Self

from moto.core.models import botocore_stubber  # noqa: F401  (importing moto's core first settles its own import cycles)
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from kennel.errors import KennelError
from kennel.rehearsal.cloud import clients, moto_patches
from kennel.rehearsal.cloud.api import Call, Handler
from kennel.rehearsal.cloud.cloudformation.rollback_triggers import remember_triggers
from kennel.rehearsal.cloud.cloudformation.types.custom import image_builder
from kennel.rehearsal.cloud.cloudwatch.alarms import Alarms
from kennel.rehearsal.cloud.cloudwatch.metrics import Metrics
from kennel.rehearsal.cloud.codedeploy import Deployments
from kennel.rehearsal.cloud.events import EventBus, EventSources
from kennel.rehearsal.cloud.gateway import Gateway
from kennel.rehearsal.cloud.iam.authorizer import Authorizer
from kennel.rehearsal.cloud.lambda_functions import Functions
from kennel.rehearsal.cloud.quotas import Quotas
from kennel.rehearsal.cloud.sagemaker.endpoints import Endpoints
from kennel.rehearsal.cloud.sagemaker.packages import Configs, Models, Packages
from kennel.rehearsal.cloud.sagemaker.pipelines import Executions, Jobs, Pipelines
from kennel.rehearsal.cloud.sagemaker.resources import ResourceStore
from kennel.rehearsal.cloud.simulated_time import SimulatedTime
from kennel.rehearsal.interfaces import DataPlane, UnusedPermission

_log = logging.getLogger(__name__)


class Cloud:
    """One embedded AWS, which serves while it is a context; one at a time in a process.

    `work` holds unpacked functions and images' sources; `port` 0 takes a free one. Entering raises KennelError when the
    port is in use.
    """

    client = staticmethod(clients.client)
    environment = staticmethod(clients.environment)

    def __init__(self, data_plane: DataPlane, work: Path, *, port: int = 0, quotas: Quotas | None = None) -> None:
        self.data_plane, self.work, self.port = data_plane, work, port
        self.pipeline_overrides: dict[str, str] = {}
        self.authorizer, self.quotas = Authorizer(), quotas or Quotas(new_account=False)
        self.time = SimulatedTime()
        self.metrics = Metrics(lambda: self.time.minute)
        self.functions = Functions(data_plane, work / "functions", self.metrics)
        self.bus = EventBus(self.functions.invoke_from, self.pipeline_overrides)
        self.alarms = Alarms(self.metrics, self.bus.publish)
        self.time.during.append(lambda: self.bus.run_schedules(self.time.minute))
        self.time.at_end.append(lambda: self.alarms.evaluate(self.time.minute))
        self.event_sources = EventSources(self.functions.invoke_with_batch)
        self._server: BaseWSGIServer | None = None

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

    @property
    def unused(self) -> list[UnusedPermission]:
        """What the roles of the deployed stacks may do and no call has needed so far."""
        return self.authorizer.unused()

    def __enter__(self) -> Self:
        """Serve on `port`, empty: moto's state of this process is reset."""
        moto_patches.apply()
        moto_patches.send_events_to(self.bus.deliver, self.bus.object_created, self.bus.publish)
        moto_api_backend.reset()
        (self.work / "functions").mkdir(parents=True, exist_ok=True)
        handlers = {
            ("lambda", "Invoke"): self.functions.invoke,
            ("cloudformation", "UpdateStack"): remember_triggers(self.time, self.alarms.rang),
            **self.alarms.handlers(),
            **Deployments(self.time).handlers(),
            ("logs", "PutLogEvents"): self.metrics.put_from_logs,
            ("codebuild", "StartBuild"): image_builder(self.data_plane, self.work / "images"),
            **self.quotas.handlers(),
            **sagemaker_handlers(self),
        }
        gateway = Gateway(DomainDispatcherApplication(create_backend_app), self._permit, handlers)
        try:
            self._server = make_server("127.0.0.1", self.port, gateway, True, request_handler=_QuietHandler)
        except (OSError, SystemExit) as error:
            raise KennelError(f"Port {self.port} is in use: choose another, or 0 for any free one.") from error
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        clients.use_server(self.url)
        self.event_sources.start()
        return self

    def _permit(self, call: Call) -> None:
        self.authorizer.permit(call)
        self.quotas.permit(call)

    def __exit__(self, *exception: object) -> None:
        self.event_sources.stop()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def sagemaker_handlers(cloud: "Cloud") -> dict[tuple[str, str], Handler]:
    """Return what answers SageMaker's operations that the app uses, by service and operation."""
    data_plane, publish = cloud.data_plane, cloud.bus.publish_as_sagemaker
    groups = ResourceStore("ModelPackageGroup", "model-package-group", {"ModelPackageGroupStatus": "Completed"})
    packages = Packages(groups, publish)
    models = Models(packages)
    configs = Configs(models)
    endpoints = Endpoints(configs, data_plane, publish, cloud.time, cloud.metrics)
    pipelines = Pipelines()
    executions = Executions(pipelines, data_plane, publish)
    training = Jobs("TrainingJob", "training-job", executions)
    processing = Jobs("ProcessingJob", "processing-job", executions)
    tuning = Jobs("HyperParameterTuningJob", "hyper-parameter-tuning-job", executions)
    found = {**executions.handlers(), "ListTrainingJobsForHyperParameterTuningJob": tuning.trials}
    for store in (groups, packages, models, configs, endpoints, pipelines, training, processing, tuning):
        found |= store.handlers()
    found["DeleteModelPackageGroup"] = packages.delete_group
    by_service = {("sagemaker", name): handler for name, handler in found.items()}
    return {**by_service, ("sagemaker-runtime", "InvokeEndpoint"): endpoints.invoke}


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        _log.debug(message, *args)
