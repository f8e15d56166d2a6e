"""The server's exceptions: it cannot start, or a request is refused."""

from collections.abc import Mapping


class StartError(Exception):
    """The server cannot start; the message is one sentence for the operator."""


class Refused(Exception):
    """A request that gets an error answer; the message is shown to the caller.

    `status` is an HTTP status, `code` a stable snake_case word that programs may match on.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def busy(retry_after: int) -> Refused:
    """Return the refusal of a server that has too much to do; the same request may succeed after so many seconds.

    SageMaker counts a 429 among the callers' errors: an overload is no fault of the model, and must roll none back.
    """
    message = "The server has too much to do; try again."
    return Refused(429, "busy", message, {"Retry-After": str(retry_after)})
