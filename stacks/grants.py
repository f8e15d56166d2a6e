"""One line a permission: what a role may do, to what, under which conditions."""

from collections.abc import Mapping, Sequence

from aws_cdk import aws_iam as iam


def allow(
    role: iam.Role, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, object] | None = None
) -> None:
    """Adds a statement to the role's own policy."""
    statement = iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
    role.add_to_policy(statement)
