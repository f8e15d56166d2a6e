"""The door before moto: every call is told, permitted or refused, answered by us or passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kennel.rehearsal.cloud.request import Call, Environ, parse
from kennel.rehearsal.cloud.response import Answer, ApiError, Start, error_answer

Handler = Callable[[Call], Answer]
_log = logging.getLogger(__name__)


class Gateway:
    """A WSGI application. `handlers` by (service, operation); `permit` raises ApiError; all else goes to `behind`."""

    def __init__(
        self, behind: Any, permit: Callable[[Call], None], handlers: Mapping[tuple[str, str], Handler]
    ) -> None:
        self.behind, self.permit, self.handlers = behind, permit, handlers

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        call = parse(environ)
        if call is None:
            passed: Iterable[bytes] = self.behind(environ, start)
            return passed
        try:
            self.permit(call)
            handler = self.handlers.get((call.service, call.operation))
            if handler:
                return handler(call).send(start)
        except ApiError as error:
            return error_answer(call.service, error).send(start)
        except Exception as error:
            _log.exception("%s:%s failed inside the embedded AWS", call.service, call.operation)
            fault = ApiError("InternalFailure", f"embedded AWS: {type(error).__name__}: {error}", 500)
            return error_answer(call.service, fault).send(start)
        answered: Iterable[bytes] = self.behind(environ, start)
        return answered
