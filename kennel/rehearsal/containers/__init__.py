"""How a program runs as it would in its container: own /opt/ml, host name and network, and a sure end."""

from kennel.rehearsal.containers.choice import pick_engine
from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Network
from kennel.rehearsal.containers.process import Process

__all__ = ["Container", "ContainerEngine", "ContainerError", "Network", "Process", "pick_engine"]
