"""Head mode: what learns is the last layer, on features of a frozen backbone."""

from training.job import Flag, Job, Trained
from training.whole.run import train_whole


def train_head(job: Job, stop: Flag) -> Trained | None:
    """Train and return the network; None when `stop` was set and what is done has been saved."""
    return train_whole(job, stop)
