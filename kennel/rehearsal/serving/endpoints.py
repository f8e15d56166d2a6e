"""SageMaker's side of an endpoint: fetches the model, starts the servers, changes them without a gap, asks them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import ContainerEngine
from kennel.rehearsal.interfaces import Deployment, EndpointAnswer, EndpointCall
from kennel.rehearsal.serving.fleet import EndpointError, Fleet
from kennel.rehearsal.serving.model import fetch_model

__all__ = ["EndpointError", "Endpoints"]


class Endpoints:
    """`client(service, role_arn)` makes a boto3 client that calls as that role; models live below `work`."""

    def __init__(self, *, client: Callable[[str, str | None], Any], engine: ContainerEngine, work: Path) -> None:
        self._client, self._engine, self._work = client, engine, work
        self._fleets: dict[str, Fleet] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    def deploy(self, deployment: Deployment) -> None:
        """Return when the new servers answer; only then are the old ones drained. Raises EndpointError with the reason
        when they cannot be started, and leaves the old ones as they are."""
        folder = self._work / deployment.endpoint / str(next(self._numbers))
        fleet = Fleet(self._engine, deployment, folder)
        try:
            s3 = self._client("s3", deployment.role_arn)
            for root in fleet.roots:
                fetch_model(s3, deployment.model_data_url, root / "model")
            fleet.start()
            with self._lock:
                if self._closed:
                    raise EndpointError("The endpoints have been shut down.")
                old, self._fleets[deployment.endpoint] = self._fleets.get(deployment.endpoint), fleet
        except BaseException:
            fleet.close()
            raise
        if old:
            old.drain()

    def invoke(self, call: EndpointCall) -> EndpointAnswer:
        """The server's own answer; raises EndpointError for a name that nobody deployed."""
        with self._lock:
            fleet = self._find(call.endpoint)
            fleet.enter()
        try:
            return fleet.ask(call)
        finally:
            fleet.leave()

    def delete(self, name: str) -> None:
        """Answer what was asked, then stop; nothing for a name that nobody deployed."""
        with self._lock:
            fleet = self._fleets.pop(name, None)
        if fleet:
            fleet.drain()

    def close(self) -> None:
        """End every server now."""
        with self._lock:
            self._closed = True
            fleets, self._fleets = list(self._fleets.values()), {}
        for fleet in fleets:
            fleet.close()

    def _find(self, name: str) -> Fleet:
        if name not in self._fleets:
            raise EndpointError(f"Endpoint {name} not found.")
        return self._fleets[name]
