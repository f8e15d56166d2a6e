"""From a request to an answer: bring the picture here, look at its kind, ask the model."""

from classify import answers, endpoint, objects, pictures
from classify.answers import Answer
from classify.deadline import Deadline
from classify.events import Request
from classify.fetch import Fetcher
from classify.settings import Settings

# The picture's share of the time, and the most of it in seconds: the model must still be asked.
_SHARE, _LONGEST = 0.6, 10.0


def classify(request: Request, settings: Settings, deadline: Deadline, fetcher: Fetcher) -> Answer:
    """Raises every kind of Problem."""
    body = _bring(request, settings, deadline.part(_SHARE, _LONGEST), fetcher)
    kind = pictures.media_type(body, settings.max_bytes)
    return answers.parse(endpoint.invoke(settings.endpoint_name, body, kind, deadline))


def _bring(request: Request, settings: Settings, deadline: Deadline, fetcher: Fetcher) -> bytes:
    if isinstance(request.value, bytes):
        return request.value
    if request.source == "s3_uri":
        return objects.read(request.value, settings.allowed_s3_prefixes, settings.max_bytes, deadline)
    return fetcher.fetch(request.value, settings.max_bytes, deadline)
