"""What the workers of a job made, brought to worker 0."""

import torch
from torch import distributed

from training.distributed.process_group import Peers
from training.train.head.store import Rows

_ROWS = 4096  # that travel at once: worker 0 holds as many of each worker beside the whole


def gather(peers: Peers, mine: Rows, whole: Rows | None) -> None:
    """Fill worker 0's `whole` [images, width] with all workers' rows; worker r holds rows r, r + world, ..."""
    if peers.world == 1:
        return  # its rows are the whole
    longest = int(peers.sum(len(mine) if peers.first else 0)[0])  # worker 0's share is never smaller than another's
    for start in range(0, longest, _ROWS):
        part = torch.zeros(min(_ROWS, longest - start), mine.shape[1])
        own = torch.from_numpy(mine[start : start + _ROWS])
        part[: len(own)] = own
        part = part.to(peers.device)
        parts = [torch.empty_like(part) for _ in range(peers.world)] if peers.first else None
        distributed.gather(part, parts, dst=0)
        if whole is not None:
            for rank, found in enumerate(parts or ()):
                target = whole[rank :: peers.world][start : start + _ROWS]
                target[:] = found[: len(target)].cpu().numpy()
