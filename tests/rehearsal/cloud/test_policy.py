"""IAM's rules of evaluation."""

from typing import Any

import pytest

from kennel.rehearsal.cloud.iam.authorizer import allowed

KEY = "arn:aws:s3:::data/photos/a.jpg"


def statement(effect: str = "Allow", **members: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*", **members}]}


def test_what_no_statement_allows_is_refused() -> None:
    assert not allowed([], "s3:GetObject", KEY, {})


@pytest.mark.parametrize(
    "action", ["s3:GetObject", "s3:Get*", "s3:*", "*", "S3:getobject", ["s3:PutObject", "s3:Ge?Object"]]
)
def test_actions_match_by_wildcard_and_without_case(action: Any) -> None:
    assert allowed([statement(Action=action)], "s3:GetObject", KEY, {})


@pytest.mark.parametrize("resource", ["arn:aws:s3:::data", "arn:aws:s3:::data/Photos/*", "arn:aws:s3:::other/*", []])
def test_another_resource_is_refused(resource: Any) -> None:
    assert not allowed([statement(Resource=resource)], "s3:GetObject", KEY, {})


def test_a_deny_wins_over_every_allow() -> None:
    documents = [statement(), statement("Deny", Resource="arn:aws:s3:::data/photos/*"), statement()]
    assert not allowed(documents, "s3:GetObject", KEY, {})
    assert allowed(documents, "s3:GetObject", "arn:aws:s3:::data/runs/a", {})


HOLDING = [
    ({"StringEquals": {"k": ["a", "b"]}}, {"k": "b"}),
    ({"StringEquals": {"K": "a"}}, {"k": "a"}),  # keys have no case
    ({"StringLike": {"k": "s3.*"}}, {"k": "s3.us-east-1"}),
    ({"ArnLike": {"k": "arn:aws:kms:*:*:key/*"}}, {"k": "arn:aws:kms:us-east-1:1:key/9"}),
    ({"ArnEquals": {"k": "arn:aws:kms:::key/9"}}, {"k": "arn:aws:kms:::key/9"}),
    ({"Bool": {"k": "true"}}, {"k": "True"}),
    ({"Bool": {"k": True}}, {"k": "true"}),
    ({"Null": {"k": "true"}}, {}),
    ({"Null": {"k": "false"}}, {"k": "x"}),
    ({"NumericLessThanEquals": {"k": 86400}}, {"k": "86400"}),
    ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "a"]}),
    ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {}),  # why it is paired with Null
]
FAILING = [
    ({"StringEquals": {"k": ["a", "b"]}}, {"k": "c"}),
    ({"StringEquals": {"k": "a"}}, {}),
    ({"StringEquals": {"k": "a", "other": "b"}}, {"k": "a"}),
    ({"StringLike": {"k": "s3.*"}}, {"k": "sqs.us-east-1"}),
    ({"Bool": {"k": "true"}}, {}),
    ({"Null": {"k": "false"}}, {}),
    ({"NumericLessThanEquals": {"k": 86400}}, {"k": "86401"}),
    ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "c"]}),
]


@pytest.mark.parametrize(("condition", "context"), HOLDING)
def test_a_condition_that_holds_lets_the_statement_count(condition: Any, context: Any) -> None:
    assert allowed([statement(Condition=condition)], "s3:GetObject", KEY, context)


@pytest.mark.parametrize(("condition", "context"), FAILING)
def test_a_condition_that_fails_leaves_the_statement_out(condition: Any, context: Any) -> None:
    assert not allowed([statement(Condition=condition)], "s3:GetObject", KEY, context)


@pytest.mark.parametrize(
    "operator", ["Roughly", "StringNotEquals", "StringEqualsIfExists", "ForAnyValue:StringEquals", "IpAddress"]
)
def test_an_operator_that_no_template_uses_is_refused_instead_of_evaluated(operator: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{operator}.*is not rehearsed"):
        allowed([statement(Condition={operator: {"k": "a"}})], "s3:GetObject", KEY, {"k": "a"})


@pytest.mark.parametrize("element", ["NotAction", "NotResource", "NotPrincipal"])
def test_an_element_that_no_template_uses_is_refused(element: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{element} in a policy is not rehearsed"):
        allowed([statement(**{element: "a"})], "iam:GetRole", None, {})
