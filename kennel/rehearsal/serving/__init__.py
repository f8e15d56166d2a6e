"""What answers callers: functions under Lambda's own runtime client, and model servers behind endpoints."""

from kennel.rehearsal.serving.endpoints import EndpointError, Endpoints
from kennel.rehearsal.serving.functions import Functions, PayloadTooLarge

__all__ = ["EndpointError", "Endpoints", "Functions", "PayloadTooLarge"]
