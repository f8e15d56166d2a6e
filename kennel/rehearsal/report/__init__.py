"""What a rehearsal leaves behind: rehearsal.json for programs, report.html for people."""

from kennel.rehearsal.report.model import Prediction, RehearsalReport
from kennel.rehearsal.report.write import write
from kennel.rehearsal.seams import CoverageRow

__all__ = ["CoverageRow", "Prediction", "RehearsalReport", "write"]
