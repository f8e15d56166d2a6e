"""EventBridge's patterns, by the examples of its own documentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kennel.rehearsal.cloud.events import look_up
from kennel.rehearsal.cloud.patterns import matches
from kennel.rehearsal.cloud.response import ApiError

EVENT = {
    "source": "aws.s3",
    "detail": {"object": {"key": "datasets/dogs/0123.manifest", "size": 12}, "ip": "10.0.0.9", "tags": ["a", "b"]},
}


@pytest.mark.parametrize(
    "pattern",
    [
        {"source": ["aws.s3"]},
        {"source": ["aws.ec2", "aws.s3"]},
        {"source": [{"prefix": "aws."}]},
        {"source": [{"suffix": ".S3"}, {"suffix": {"equals-ignore-case": ".S3"}}]},
        {"source": [{"equals-ignore-case": "AWS.S3"}]},
        {"source": [{"anything-but": "aws.ec2"}]},
        {"source": [{"anything-but": {"prefix": ["gcp", "azure"]}}]},
        {"detail": {"object": {"key": [{"wildcard": "datasets/*.manifest"}]}}},
        {"detail": {"object": {"key": [{"wildcard": "*dogs*"}]}}},
        {"detail": {"object": {"size": [{"numeric": [">", 0, "<=", 12]}]}}},
        {"detail": {"object": {"size": [12]}}},
        {"detail": {"ip": [{"cidr": "10.0.0.0/24"}]}},
        {"detail": {"tags": ["b"]}},
        {"detail": {"nothing": [{"exists": False}]}},
        {"detail": {"ip": [{"exists": True}]}},
        {"$or": [{"source": ["aws.ec2"]}, {"detail": {"ip": [{"exists": True}]}}]},
    ],
)
def test_an_event_with_a_value_that_the_pattern_lists_matches(pattern: dict[str, object]) -> None:
    assert matches(pattern, EVENT)


@pytest.mark.parametrize(
    "pattern",
    [
        {"source": ["aws.ec2"]},
        {"source": [{"prefix": "s3"}]},
        {"source": ["aws.s3"], "detail-type": ["Object Created"]},
        {"detail": {"object": {"key": [{"wildcard": "datasets/*.manifes"}]}}},
        {"detail": {"object": {"key": [{"wildcard": "datasets/?ogs/*"}]}}},  # EventBridge has only the star
        {"detail": {"object": {"size": [{"numeric": ["<", 12]}]}}},
        {"detail": {"object": {"size": ["12"]}}},
        {"detail": {"ip": [{"cidr": "10.1.0.0/24"}]}},
        {"detail": {"ip": [{"exists": False}]}},
        {"detail": {"tags": ["c"]}},
        {"source": [{"anything-but": ["aws.s3"]}]},
        {"source": {"deeper": ["x"]}},
    ],
)
def test_an_event_that_differs_in_one_field_does_not_match(pattern: dict[str, object]) -> None:
    assert not matches(pattern, EVENT)


def test_a_comparison_that_eventbridge_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="regex"):
        matches({"source": [{"regex": "aws.*"}]}, EVENT)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_star_stands_for_any_text(before: str, after: str) -> None:
    key = f"datasets/{before}/{after}.manifest"
    assert matches({"key": [{"wildcard": "datasets/*.manifest"}]}, {"key": key})


def test_a_path_reads_a_field_of_the_event() -> None:
    assert look_up("$.detail.object.key", EVENT) == "datasets/dogs/0123.manifest"


def test_a_path_to_a_field_that_is_not_there_is_said() -> None:
    with pytest.raises(ApiError, match=r"\$\.detail\.bucket"):
        look_up("$.detail.bucket", EVENT)
