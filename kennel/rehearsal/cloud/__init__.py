"""The embedded AWS: moto on loopback, what moto lacks, and the deployment of a cloud assembly into it."""

from kennel.rehearsal.cloud.deploy import Deployed, coverage, deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.interfaces import CoverageRow

__all__ = ["Cloud", "CoverageRow", "Deployed", "coverage", "deploy"]
