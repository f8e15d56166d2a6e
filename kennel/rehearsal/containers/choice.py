"""Which engine this machine can have."""

import tempfile
from pathlib import Path

from kennel.rehearsal.containers.engine import ContainerEngine
from kennel.rehearsal.containers.images import image_engine
from kennel.rehearsal.containers.local import NamespaceEngine, ProcessEngine


def pick_engine(images: bool = False, scratch: Path | None = None) -> ContainerEngine:
    """Container images if asked for, else private namespaces, else bare processes.

    Building the images takes a minute or more, once for the same files. `scratch` must outlive the engine; None: a
    temporary folder that stays. Raises ContainerError when images are asked for and cannot be had.
    """
    if images:
        return image_engine(scratch or Path(tempfile.mkdtemp(prefix="kennel-")))
    with tempfile.TemporaryDirectory(prefix="kennel-") as folder:
        engine = NamespaceEngine()
        return engine if engine.works(Path(folder)) else ProcessEngine()
