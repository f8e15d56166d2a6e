"""The process group of a training job: the collective operations that training uses; one rank alone opens nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import torch
from torch import distributed

from training.errors import TrainingError

PATIENCE = 600.0  # seconds: hosts start as far apart as their images and data take to come


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among the `world_size` ranks of the job, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    @contextmanager
    def initialize(cls, device: torch.device) -> Iterator[Self]:
        """Join the process group that the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) describes.

        Raise TrainingError if not all ranks join within PATIENCE_SECONDS (600); every later collective operation may
        wait as long, which is one step or one validation of the slowest rank.
        """
        group = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), device)
        if group.world_size == 1:
            yield group
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=float(os.environ.get("PATIENCE_SECONDS") or PATIENCE))
        try:
            distributed.init_process_group(backend, rank=group.rank, world_size=group.world_size, timeout=timeout)
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise TrainingError(f"The {group.world_size} workers did not meet at {place}: {error}.") from error
        yield group
        # Only after success: after a failure the others may be gone, and waiting for them would hide the reason.
        distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes what the job leaves."""
        return self.rank == 0

    def all_reduce(self, *values: float) -> list[float]:
        """Return each value's sum over all ranks."""
        if self.world_size == 1:
            return [float(value) for value in values]
        sums = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return [float(total) for total in sums.tolist()]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's `value` on every rank; it travels pickled."""
        if self.world_size == 1:
            return value
        objects = [value]
        distributed.broadcast_object_list(objects, src=0, device=self.device)
        return objects[0]

    def all_gather_rows(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Return all ranks' rows in one tensor [count, ...] on every rank; rank r gives rows r, r + world_size, ..."""
        if self.world_size == 1:
            return rows
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, rows)
        whole = torch.empty(count, *rows.shape[1:], dtype=rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.world_size] = part
        return whole
