"""The report of a rehearsal: rehearsal.json for programs, report.html for people."""

from kennel.rehearsal.interfaces import CoverageRow
from kennel.rehearsal.report.content import Prediction, RehearsalReport, write

__all__ = ["CoverageRow", "Prediction", "RehearsalReport", "write"]
