"""The errors that a caller can get, with the code and the HTTP status of each.

An error's text is shown to the caller, so it is always a sentence of this package. The text of an inner error, such as
botocore's, is kept as `__cause__` and goes to the log only.
"""

from typing import NamedTuple


class ClassifyError(Exception):
    """An answer other than probabilities: the text says what is wrong and what to do.

    `retryable` says whether the same call to the endpoint may succeed in a moment.
    """

    def __init__(self, text: str, retryable: bool = False) -> None:
        super().__init__(text)
        self.retryable = retryable


class InvalidRequest(ClassifyError):
    """The event has none of the documented shapes."""


class ImageError(ClassifyError):
    """Bytes arrived, but not ones that the model takes."""


class NotAnImage(ImageError):
    """The bytes are empty, are no image, or cannot be decoded."""


class UnsupportedImage(ImageError):
    """The bytes are an image of a type that the model does not take, such as TIFF."""


class TooLarge(ImageError):
    """The image has more bytes than the endpoint takes, or more pixels than the server decodes."""


class FetchError(ClassifyError):
    """The image could not be fetched from the URL or from S3."""


class UrlRefused(FetchError):
    """The URL is not plain https to the public internet."""


class S3Refused(FetchError):
    """The object lies outside the allowed prefixes, does not exist, or may not be read."""


class FetchFailed(FetchError):
    """The URL's server, its name or S3 failed."""


class FetchTimeout(FetchError):
    """The URL's server, its name server or S3 did not answer within the time that fetching may take."""


class EndpointError(ClassifyError):
    """The image is fine, but the endpoint gave no probabilities."""


class NoModel(EndpointError):
    """The endpoint does not exist yet, because no model was released."""


class EndpointThrottled(EndpointError):
    """SageMaker or the inference server throttled the call."""


class EndpointUnavailable(EndpointError):
    """The endpoint failed, could not be reached, or did not answer before the deadline."""


class BadAnswer(EndpointError):
    """The inference server answered something that cannot be right, or did not understand the request."""


class UnexpectedResponse(Exception):
    """What SageMaker answered, for the log; raised itself where no caller can help, as when a permission is missing."""


class Outcome(NamedTuple):
    """How an answer is reported: `retry_after` in seconds, None where repeating the same call would not help."""

    code: str
    status: int
    retry_after: int | None = None


OK = Outcome("ok", 200)
INTERNAL = Outcome("internal_error", 500)  # every other exception

OUTCOMES: dict[type[ClassifyError], Outcome] = {
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
