"""Where an answer's time went."""

from dataclasses import asdict, dataclass


@dataclass
class Timings:
    """Milliseconds; of several pictures the longest wait, and the work on all of them added up."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    model_ms: float = 0.0

    def add(self, other: "Timings") -> None:
        self.queue_ms = max(self.queue_ms, other.queue_ms)
        self.decode_ms += other.decode_ms
        self.model_ms += other.model_ms

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}

    def header(self) -> str:
        """As browsers' developer tools show it: https://www.w3.org/TR/server-timing/"""
        return ", ".join(f"{name.removesuffix('_ms')};dur={value:g}" for name, value in self.rounded().items())
