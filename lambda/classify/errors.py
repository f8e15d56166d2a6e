"""Everything that this function can say no with: one tree, one table.

A problem's own text is shown to the caller, so it is always a sentence of ours; what an inner error said goes to the
log only, as the problem's `__cause__`.
"""

from typing import NamedTuple


class Problem(Exception):
    """An answer other than probabilities. The text says what is wrong and what to do.

    `again`: whether the very same call may well succeed in a moment.
    """

    def __init__(self, text: str, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


class InvalidRequest(Problem):
    """The event has none of the documented shapes."""


class BadPicture(Problem):
    """Bytes arrived, but not ones that the model can look at."""


class NotAnImage(BadPicture):
    pass


class UnsupportedImage(BadPicture):
    pass


class TooLarge(BadPicture):
    pass


class FetchProblem(Problem):
    """The picture could not be brought here."""


class UrlRefused(FetchProblem):
    pass


class S3Refused(FetchProblem):
    pass


class FetchFailed(FetchProblem):
    pass


class FetchTimeout(FetchProblem):
    pass


class EndpointProblem(Problem):
    """The picture is fine; the model did not answer."""


class NoModel(EndpointProblem):
    pass


class EndpointThrottled(EndpointProblem):
    pass


class EndpointUnavailable(EndpointProblem):
    pass


class BadAnswer(EndpointProblem):
    pass


class Outcome(NamedTuple):
    """How a problem reads on the wire; `retry_after` in seconds, None where coming again would not help."""

    code: str
    status: int
    retry_after: int | None = None


INTERNAL = Outcome("internal_error", 500)

OUTCOMES: dict[type[Problem], Outcome] = {
    InvalidRequest: Outcome("invalid_request", 400),
    NotAnImage: Outcome("not_an_image", 400),
    UnsupportedImage: Outcome("unsupported_image", 415),
    TooLarge: Outcome("too_large", 413),
    UrlRefused: Outcome("url_refused", 403),
    S3Refused: Outcome("s3_refused", 403),
    FetchFailed: Outcome("fetch_failed", 502),
    FetchTimeout: Outcome("fetch_timeout", 504),
    NoModel: Outcome("no_model", 503),
    EndpointThrottled: Outcome("endpoint_throttled", 503, retry_after=2),
    EndpointUnavailable: Outcome("endpoint_unavailable", 503, retry_after=5),
    BadAnswer: Outcome("bad_answer", 502),
}
