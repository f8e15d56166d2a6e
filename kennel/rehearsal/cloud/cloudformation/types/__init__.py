"""CloudFormation's resource types that moto lacks or holds only in part, as tables over AWS's own API."""

from kennel.rehearsal.cloud.cloudformation.types import (
    applications,
    buckets,
    custom,
    functions,
    gateways,
    networks,
    operations,
    sagemaker,
)
from kennel.rehearsal.cloud.cloudformation.types.model import register_rows
from kennel.rehearsal.cloud.cloudformation.types.resource import Row

ROWS: dict[str, Row] = {
    row.type: row
    for rows in (
        applications.ROWS,
        buckets.ROWS,
        custom.ROWS,
        functions.ROWS,
        gateways.ROWS,
        networks.ROWS,
        operations.ROWS,
        sagemaker.ROWS,
    )
    for row in rows
}


def register() -> None:
    """Make every row known to moto's CloudFormation."""
    register_rows(list(ROWS.values()))
