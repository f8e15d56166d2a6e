"""Runs programs as in a container, with their own /opt/ml, host name, processes and network, and leaves none behind."""

from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Network, Process
from kennel.rehearsal.containers.images import image_engine
from kennel.rehearsal.containers.local import pick_engine

__all__ = ["Container", "ContainerEngine", "ContainerError", "Network", "Process", "image_engine", "pick_engine"]
