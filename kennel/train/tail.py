"""The log lines of one job out of CloudWatch Logs: each once, none lost, however often one looks."""

from collections.abc import Iterator
from typing import Any

_GROUPS = {
    "TrainingJob": "/aws/sagemaker/TrainingJobs",
    "ProcessingJob": "/aws/sagemaker/ProcessingJobs",
}


class Tail:
    """`kind` is TrainingJob or ProcessingJob. A job has a stream a host, and new ones after a spot interruption."""

    def __init__(self, logs: Any, kind: str, job: str) -> None:
        self._logs, self._group, self._job = logs, _GROUPS[kind], job
        self._tokens: dict[str, str] = {}

    def read(self) -> Iterator[tuple[str, str]]:
        """Yield (host, line) of what has arrived since the last call; host is empty while there is only one."""
        streams = self._streams()
        hosts = {_host(stream) for stream in streams}
        for stream in streams:
            for line in self._new(stream):
                yield _host(stream) if len(hosts) > 1 else "", line

    def _streams(self) -> list[str]:
        pages = self._logs.get_paginator("describe_log_streams")
        try:
            found = [
                str(stream["logStreamName"])
                for page in pages.paginate(logGroupName=self._group, logStreamNamePrefix=f"{self._job}/")
                for stream in page["logStreams"]
            ]
        except self._logs.exceptions.ResourceNotFoundException:
            return []  # the account's first job has not written yet
        return sorted(found)

    def _new(self, stream: str) -> Iterator[str]:
        """An empty page is not the end: that is where the token stays the same."""
        while True:
            known = self._tokens.get(stream)
            more = {"nextToken": known} if known else {}
            page = self._logs.get_log_events(logGroupName=self._group, logStreamName=stream, startFromHead=True, **more)
            # Before the lines are passed on: whoever stops reading in the middle has seen these.
            self._tokens[stream] = page["nextForwardToken"]
            yield from (event["message"] for event in page["events"])
            if page["nextForwardToken"] == known:
                return


def _host(stream: str) -> str:
    """`algo-2` of `<job>/algo-2-1700000000`, as SageMaker names streams."""
    return "-".join(stream.rpartition("/")[2].split("-")[:2])
