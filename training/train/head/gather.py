"""What the workers of a job made, brought to worker 0."""

import torch
from torch import distributed

from training.distributed.process_group import ProcessGroup
from training.train.head.store import Rows

_ROWS = 4096  # that travel at once: worker 0 holds as many of each worker beside the whole


def gather(group: ProcessGroup, mine: Rows, whole: Rows | None) -> None:
    """Fill worker 0's `whole` [images, width] with all workers' rows; worker r holds rows r, r + world, ..."""
    if group.world_size == 1:
        return  # its rows are the whole
    longest = int(group.all_reduce(len(mine) if group.is_main else 0)[0])  # no rank's share is larger than rank 0's
    for start in range(0, longest, _ROWS):
        part = torch.zeros(min(_ROWS, longest - start), mine.shape[1])
        own = torch.from_numpy(mine[start : start + _ROWS])
        part[: len(own)] = own
        part = part.to(group.device)
        parts = [torch.empty_like(part) for _ in range(group.world_size)] if group.is_main else None
        distributed.gather(part, parts, dst=0)
        if whole is not None:
            for rank, found in enumerate(parts or ()):
                target = whole[rank :: group.world_size][start : start + _ROWS]
                target[:] = found[: len(target)].cpu().numpy()
