"""What the launchers of one job's hosts tell each other: that one stops or fails, that one is gone.

The first host passes on what any other says. A message is one line of JSON. The libraries under the workers would
notice a lost rank too, but late (at the next exchange), and could not say why it was lost.
"""

import json
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from training.distributed.cluster import Cluster

_SILENT = 20_000  # milliseconds without a sign of the other host's kernel until the connection counts as lost
_LINE = 65_536  # bytes; the longest message is far shorter


@dataclass(frozen=True)
class Word:
    """One message: `kind` is hello, start, stop, failed or ended."""

    kind: str
    host: str
    workers: int = 0  # hello: how many this host has
    port: int = 0  # start: where the workers meet
    reason: str = ""  # failed


class Link:
    """One end of the connection between two launchers."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT),
        ):
            connection.setsockopt(level, option, value)
        self.connection, self.host, self.open = connection, "", True
        self._rest = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def say(self, word: Word) -> None:
        with suppress(OSError):  # that it is gone shows when it is read
            self.connection.sendall(json.dumps(asdict(word)).encode() + b"\n")

    def hear(self) -> list[Word]:
        """Return what has come; closes the link at its end and when it brings anything else than messages."""
        try:
            data = self.connection.recv(_LINE)
            *lines, self._rest = (self._rest + data).split(b"\n")
            words = [Word(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            data, words = b"", []
        if not data or len(self._rest) > _LINE:
            self.close()
        return words

    def close(self) -> None:
        self.open = False
        self.connection.close()

    def part(self) -> None:
        """Close after what was said has arrived: closing on unread words makes TCP drop what is under way."""
        deadline = time.monotonic() + 1.0
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_LINE):
                    break
        self.close()

    def gone(self) -> str:
        return f"The host {self.host} is gone without a word."


def say_to_all(links: Sequence[Link], word: Word) -> None:
    for link in links:
        link.say(word)


class Hosts:
    """The other hosts of a job that has begun: the first host is linked to all, each other one to the first."""

    def __init__(self, cluster: Cluster, links: Sequence[Link], port: int, heard: Sequence[Word] = ()) -> None:
        """`port`: where all hosts' workers meet; `heard`: what the first host said right after it."""
        self._cluster, self._links, self.port, self._heard = cluster, links, port, list(heard)
        self.address = links[0].connection.getsockname()[0] if links else ""  # of this host, as the others see it

    def tell(self, kind: str, reason: str = "") -> None:
        """Say to all the others that this host stops, failed (with the reason) or ended well."""
        say_to_all(self._links, Word(kind, self._cluster.current, reason=reason))

    def listen(self, seconds: float) -> list[Word]:
        """Wait at most so long and return what others say (stop, failed); a host that is lost has failed."""
        heard, self._heard = self._heard, []
        if heard or not self._links:
            time.sleep(seconds)
            return heard
        for link in select.select(self._links, [], [], seconds)[0]:
            words = link.hear()
            if any(word.kind == "ended" for word in words):
                link.close()
            elif not link.open:
                words.append(Word("failed", link.host, reason=link.gone()))
            news = [word for word in words if word.kind != "ended"]
            if self._cluster.place == 0:
                for word in news:
                    say_to_all([other for other in self._links if other is not link], word)
            heard += news
        self._links = [link for link in self._links if link.open]
        return heard
