"""The embedded AWS with its data planes, put together: the only place that knows all three."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.containers import image_engine, pick_engine
from kennel.rehearsal.follow import Follower
from kennel.rehearsal.interfaces import DataPlane
from kennel.rehearsal.jobs.execution import PipelineRunner
from kennel.rehearsal.options import Options
from kennel.rehearsal.serving.endpoints import Endpoints
from kennel.rehearsal.serving.functions import Functions


@contextmanager
def embedded(options: Options, work: Path, follower: Follower) -> Iterator[Cloud]:
    """Start the embedded AWS on loopback and yield it; everything it started ends with the block."""
    with ExitStack() as stack:
        engine = image_engine(work / "images", options.base_image) if options.images else pick_engine()
        stack.callback(engine.close)
        follower.display.log(f"Containers: {engine.name}. {engine.notice}".strip())
        cloud: Cloud

        def client(service: str, role_arn: str | None = None) -> Any:
            return cloud.client(service, role_arn)

        functions = Functions(environment=lambda role_arn: cloud.environment(role_arn))
        endpoints = Endpoints(client=client, engine=engine, work=work / "endpoints")
        runner = PipelineRunner(
            client=client,
            work=work / "jobs",
            containers=engine,
            on_event=follower,
            interrupt_spot=options.spot,
            seed=options.seed,
        )
        stack.callback(runner.close)
        stack.callback(endpoints.close)
        stack.callback(functions.close)
        data_plane = DataPlane(runner.run, functions.invoke, endpoints.deploy, endpoints.delete, endpoints.invoke)
        cloud = stack.enter_context(Cloud(data_plane, work / "cloud", port=options.port))
        yield cloud
