"""The workers of one job among each other; with a single worker nothing is opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from training.distributed.rendezvous import patience
from training.errors import TrainingError


@dataclass(frozen=True)
class Peers:
    """This worker's rank among `world` workers."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    @contextmanager
    def join(cls, device: torch.device) -> "Iterator[Peers]":
        """Meet the workers that the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) announces.

        Raises TrainingError if they do not come within `patience()` seconds; later waits are as long, for one step or
        one validation of the slowest worker.
        """
        peers = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), device)
        if peers.world == 1:
            yield peers
            return
        backend, timeout = "nccl" if device.type == "cuda" else "gloo", timedelta(seconds=patience())
        try:
            distributed.init_process_group(backend, rank=peers.rank, world_size=peers.world, timeout=timeout)
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise TrainingError(f"The {peers.world} workers did not meet at {place}: {error}.") from error
        yield peers
        # Only after success: after a failure the others may be gone, and waiting for them would hide the reason.
        distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return each value's sum over all workers."""
        if self.world == 1:
            return [float(value) for value in values]
        totals = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        distributed.all_reduce(totals)
        return [float(total) for total in totals.tolist()]

    def from_first(self, value: Any) -> Any:
        """Return worker 0's `value` on each worker."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def interleave(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Return the workers' rows in one tensor [count, ...] on each worker; worker r holds rows r, r + world, ..."""
        if self.world == 1:
            return rows
        parts: list[Any] = [None] * self.world
        distributed.all_gather_object(parts, rows)
        whole = torch.empty(count, *rows.shape[1:], dtype=rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.world] = part
        return whole
