"""What a rehearsal leaves behind: rehearsal.json for programs, report.html for people."""

from kennel.rehearsal.interfaces import CoverageRow
from kennel.rehearsal.report.model import Prediction, RehearsalReport
from kennel.rehearsal.report.write import write

__all__ = ["CoverageRow", "Prediction", "RehearsalReport", "write"]
