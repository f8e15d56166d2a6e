"""Which engine this machine can have."""

import tempfile
from pathlib import Path

from kennel.rehearsal.containers.engine import ContainerEngine
from kennel.rehearsal.containers.local import NamespaceEngine, ProcessEngine


def pick_engine(images: bool = False) -> ContainerEngine:
    """Container images if asked for, else private namespaces, else bare processes.

    Raises ContainerError when images are asked for and there is no docker, podman or buildah.
    """
    if images:
        from kennel.rehearsal.containers.images import ImageEngine

        return ImageEngine.find()
    with tempfile.TemporaryDirectory(prefix="kennel-") as scratch:
        engine = NamespaceEngine()
        return engine if engine.works(Path(scratch)) else ProcessEngine()
