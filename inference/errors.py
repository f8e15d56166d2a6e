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
