"""Where SageMaker's runtime is called: as boto3 would, in every region that it knows."""

import boto3  # type: ignore[import-untyped]
import pytest
from classify.service import Service, of_environment

SESSION = boto3.Session()
REGIONS = [
    (partition, region)
    for partition in SESSION.get_available_partitions()
    for region in SESSION.get_available_regions("sagemaker-runtime", partition)
]


def boto3s(region: str) -> str:
    url: str = SESSION.client("sagemaker-runtime", region_name=region).meta.endpoint_url
    return url


@pytest.fixture(autouse=True)
def bare(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No region and no URL, whatever the machine's own environment has."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        environment.delenv(name, raising=False)
    return environment


def test_each_partition_has_regions_to_compare() -> None:
    assert {"aws", "aws-cn", "aws-us-gov"} <= {partition for partition, _ in REGIONS}


@pytest.mark.parametrize(("partition", "region"), [*REGIONS, ("aws", "eu-central-9"), ("aws-cn", "cn-north-9")])
def test_each_region_has_the_address_that_boto3_finds(bare: pytest.MonkeyPatch, partition: str, region: str) -> None:
    bare.setenv("AWS_REGION", region)
    assert of_environment() == Service(boto3s(region), region)


def test_china_has_a_suffix_of_its_own(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_REGION", "cn-north-1")
    assert of_environment().url == "https://runtime.sagemaker.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000/"},
        {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://one.example/base"},
        {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://one.example", "AWS_ENDPOINT_URL": "http://two.example"},
        {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "", "AWS_ENDPOINT_URL": "http://two.example"},
        {"AWS_ENDPOINT_URL": ""},
        {"AWS_ENDPOINT_URL": "http://two.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_ENDPOINT_URL": "http://two.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"},
        {"AWS_ENDPOINT_URL_SAGEMAKER": "http://another-service.example"},
    ],
)
def test_a_url_in_the_environment_counts_as_with_boto3(bare: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    bare.setenv("AWS_REGION", "eu-west-1")
    for name, value in variables.items():
        bare.setenv(name, value)
    assert of_environment().url == boto3s("eu-west-1").rstrip("/")


def test_a_region_may_be_named_by_either_variable_and_lambdas_own_comes_first(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert of_environment().region == "eu-west-2"
    bare.setenv("AWS_REGION", "eu-west-1")
    assert of_environment().region == "eu-west-1"


def test_without_a_region_nothing_is_guessed(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        of_environment()
