"""The process group of a training job: the collective operations that training uses; one rank alone opens nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
from torch import distributed

from training.distributed.cluster import process_group_timeout
from training.errors import TrainingError


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

        Raise TrainingError if not all ranks join within PROCESS_GROUP_TIMEOUT_SECONDS (600), or if this host does not
        have as many as the others; every later operation may take as long: one step or validation of the slowest rank.
        """
        group = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), device)
        if group.world_size == 1:
            yield group
            return
        _check_local_world_size(group.world_size)
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=process_group_timeout())
        try:
            distributed.init_process_group(backend, rank=group.rank, world_size=group.world_size, timeout=timeout)
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise TrainingError(f"The {group.world_size} workers did not meet at {place}: {error}.") from error
        _announce()
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

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        self.all_reduce(0)

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


def _check_local_world_size(world_size: int) -> None:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    hosts = int(os.environ.get("GROUP_WORLD_SIZE", str(world_size)))
    if local * hosts != world_size:
        raise TrainingError(
            f"This host has {local} workers, but the {hosts} hosts have {world_size} together: "
            "all hosts must be of one instance type."
        )


def _announce() -> None:
    """Leave this process's id beside torchrun's error file: from now on SIGTERM lets this rank write a checkpoint."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        Path(file).with_name(f"{os.getpid()}.pid").touch()
