"""What the stack tells this function through its environment."""

import os
from functools import lru_cache
from typing import NamedTuple, Self


class Settings(NamedTuple):
    """`allowed_s3_prefixes`: `bucket/folder/`, each ending in a slash; `max_bytes`: of one picture."""

    endpoint_name: str
    allowed_s3_prefixes: tuple[str, ...]
    top_k: int
    max_bytes: int

    @classmethod
    @lru_cache(maxsize=1)
    def from_environment(cls) -> Self:
        """Read once a sandbox. Raises KeyError or ValueError where the stack left something out."""
        given = os.environ.get("ALLOWED_S3_PREFIXES", "").split(",")
        return cls(
            endpoint_name=os.environ["ENDPOINT_NAME"],
            allowed_s3_prefixes=tuple(f"{prefix.strip().strip('/')}/" for prefix in given if prefix.strip(" /")),
            top_k=int(os.environ.get("TOP_K", "5")),
            max_bytes=int(os.environ.get("MAX_BYTES", "6000000")),
        )
