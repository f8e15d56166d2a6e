"""How the launchers of one job's hosts find each other: the first listens at MASTER_ADDR:MASTER_PORT."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.distributed.cluster import Cluster
from training.distributed.messages import Hosts, Link, Word, say_to_all
from training.errors import TrainingError

PATIENCE = 600.0  # seconds: hosts start as far apart as their images and data take to come
_LOOK = 0.1  # seconds between two looks at whether to stop


class Stopped(Exception):
    """The job was asked to stop before all hosts had come."""


def patience() -> float:
    """Return for how many seconds hosts wait for each other, and workers: 600, or the variable PATIENCE_SECONDS."""
    return float(os.environ.get("PATIENCE_SECONDS") or PATIENCE)


@contextmanager
def meet(cluster: Cluster, stopping: Callable[[], bool]) -> Iterator[Hosts]:
    """Wait until all hosts of `cluster` have come. One host alone opens nothing.

    Raises TrainingError when one does not come in time, leaves again, or has other devices; Stopped when `stopping` or
    another host says so.
    """
    links: list[Link] = []
    meeting = _Meeting(cluster, links, stopping)
    try:
        yield meeting.gather() if cluster.place == 0 else meeting.join()
    finally:
        for link in links:
            link.part()


class _Meeting:
    """Fills `links`."""

    def __init__(self, cluster: Cluster, links: list[Link], stopping: Callable[[], bool]) -> None:
        self._cluster, self._links, self._stopping = cluster, links, stopping
        self._deadline = time.monotonic() + patience()

    def gather(self) -> Hosts:
        """The first host's part: let the others in, tell them where the workers meet."""
        try:
            if len(self._cluster.hosts) > 1:
                with _listen(self._cluster.port) as server:
                    self._let_in(server)
        except (Stopped, TrainingError) as end:
            kind = "stop" if isinstance(end, Stopped) else "failed"
            say_to_all(self._links, Word(kind, self._cluster.current, reason=str(end)))
            raise
        port = _free_port()
        say_to_all(self._links, Word("start", self._cluster.current, port=port))
        return Hosts(self._cluster, self._links, port)

    def _let_in(self, server: socket.socket) -> None:
        strangers: list[Link] = []
        try:
            while missing := set(self._cluster.hosts[1:]) - {link.host for link in self._links}:
                names = ", ".join(sorted(missing))
                self._wait_or_give_up(f"These hosts did not come within {patience():g} s: {names}; see their logs.")
                sources: list[socket.socket | Link] = [server, *strangers, *self._links]
                ready = select.select(sources, [], [], _LOOK)[0]
                for link in [link for link in self._links if link in ready]:
                    _heed(link, link.hear())
                strangers = [link for link in strangers if not (link in ready and self._greet(link, missing))]
                if server in ready:
                    strangers.append(Link(server.accept()[0]))
        finally:
            for link in strangers:
                if not link.host:
                    link.close()

    def _greet(self, link: Link, missing: set[str]) -> bool:
        """Take a host's hello and return whether this link is a stranger no longer: let in, or sent away."""
        words = link.hear()
        for word in words[:1]:
            if word.kind != "hello" or word.host not in missing:
                link.close()
                return True
            link.host = word.host
            missing.discard(word.host)
            self._links.append(link)
            if word.workers != self._cluster.workers:
                raise TrainingError(
                    f"{word.host} has {word.workers} workers, but {self._cluster.current} has {self._cluster.workers}: "
                    "all hosts must be of one instance type."
                )
            _heed(link, words[1:])
        return bool(words) or not link.open

    def join(self) -> Hosts:
        """Every other host's part: find the first, say hello, wait for the start."""
        cluster, place = self._cluster, f"{self._cluster.address}:{self._cluster.port}"
        late = f"The first host, {cluster.hosts[0]}, did not answer at {place} within {patience():g} s."
        while (link := _connect(cluster)) is None:
            self._wait_or_give_up(late)
            time.sleep(_LOOK)
        self._links.append(link)
        link.say(Word("hello", cluster.current, workers=cluster.workers))
        while True:
            # The first host gives up for all and says so; this is for one that hangs.
            self._wait_or_give_up(late, spare=10.0)
            if select.select([link], [], [], _LOOK)[0]:
                words = link.hear()
                if words and words[0].kind == "start":
                    return Hosts(cluster, self._links, words[0].port, words[1:])
                _heed(link, words)

    def _wait_or_give_up(self, late: str, spare: float = 0.0) -> None:
        if self._stopping():
            say_to_all(self._links, Word("stop", self._cluster.current))
            raise Stopped
        if time.monotonic() > self._deadline + spare:
            raise TrainingError(late)


def _heed(link: Link, words: list[Word]) -> None:
    """Do what a host says before the start, and notice that it has left."""
    for word in words:
        raise Stopped if word.kind == "stop" else TrainingError(word.reason)
    if not link.open:
        raise TrainingError(link.gone())


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise TrainingError(
            f"Port {port} of this host cannot be had: {os.strerror(error.errno or 0)}; set MASTER_PORT."
        ) from None


def _connect(cluster: Cluster) -> Link | None:
    try:
        connection = socket.create_connection((cluster.address, cluster.port), timeout=5.0)
    except OSError:  # not up yet, or its name is not known yet
        return None
    if connection.getsockname() == connection.getpeername():  # TCP lets a port of this machine meet itself
        connection.close()
        return None
    link = Link(connection)
    link.host = cluster.hosts[0]
    return link


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port
