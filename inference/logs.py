"""One JSON object a line on standard output; a request's body is never in it."""

import json
import logging
import sys
from datetime import UTC, datetime


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start() -> None:
    """Sends every logger of this process, uvicorn's too, to standard output."""
    logging.raiseExceptions = False  # a closed pipe must not bring a server down
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def event(name: str, **facts: object) -> None:
    logging.getLogger("inference").info(name, extra={"facts": facts})


def failure(name: str) -> None:
    """With the exception that is being handled."""
    logging.getLogger("inference").exception(name)
