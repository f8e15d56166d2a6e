"""A new account: what its quotas refuse, in which words, and what it takes to deploy each stage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import KennelError
from kennel.preflight import examine
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.quotas import Quotas
from tests.rehearsal.cloud.world import World, eventually, refusal

ROLE = "arn:aws:iam::123456789012:role/any"
LEFT = "Please use AWS Service Quotas to request an increase for this quota."


def account(work: Path, **raised: int) -> World:
    names = {
        "concurrency": "Concurrent executions",
        "endpoint": "ml.m5.xlarge for endpoint usage",
        "training": "ml.m5.xlarge for training job usage",
        "instances": "Number of instances across active endpoints",
    }
    return World(work, quotas=Quotas(new_account=True, raised={names[name]: one for name, one in raised.items()}))


@pytest.fixture
def new(tmp_path: Path) -> Iterator[World]:
    world = account(tmp_path)
    with world.cloud:
        yield world


def training_job(name: str, instances: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": "local/x", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": instances, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        **more,
    }


def test_dev_deploys_in_a_new_account_and_its_first_job_is_refused(new: World, assembly: Path) -> None:
    assert deploy(new.cloud, assembly, "Dev").outputs
    cluster = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
    code, text = refusal(
        new.cloud.client("sagemaker").create_processing_job,
        ProcessingJobName="prepare",
        RoleArn=ROLE,
        AppSpecification={"ImageUri": "local/x"},
        ProcessingResources={"ClusterConfig": cluster},
    )
    assert code == "ResourceLimitExceeded"
    assert "service limit 'ml.m5.xlarge for processing job usage' is 0 Instances, with current" in text
    assert f"utilization of 0 Instances and a request delta of 1 Instances. {LEFT}" in text


def test_prod_does_not_deploy_there_because_it_reserves_concurrency(new: World, assembly: Path) -> None:
    with pytest.raises(KennelError, match=r"AWS::Lambda::Function .*InvalidParameterValueException") as refused:
        deploy(new.cloud, assembly, "Prod")
    words = "decreases account's UnreservedConcurrentExecution below its minimum value of [10]."
    assert words in str(refused.value)


def test_prod_deploys_once_lambda_s_quota_is_raised(tmp_path: Path, assembly: Path) -> None:
    world = account(tmp_path, concurrency=1000)
    with world.cloud:
        assert deploy(world.cloud, assembly, "Prod").outputs


@pytest.mark.parametrize(("quota", "least"), [(10, 10), (100, 100), (1000, 100)])
def test_of_lambda_s_concurrency_a_hundred_or_all_stay_unreserved(tmp_path: Path, quota: int, least: int) -> None:
    world = account(tmp_path, concurrency=quota)
    with world.cloud:
        functions = world.cloud.client("lambda")
        asked = quota - least + 1
        _, text = refusal(functions.put_function_concurrency, FunctionName="any", ReservedConcurrentExecutions=asked)
        assert text.endswith(f"minimum value of [{least}].")
        settings = functions.get_account_settings()["AccountLimit"]
        assert (settings["ConcurrentExecutions"], settings["UnreservedConcurrentExecutions"]) == (quota, quota)


def test_spot_and_on_demand_training_are_counted_apart_and_all_jobs_of_a_kind_together(tmp_path: Path) -> None:
    world = account(tmp_path, training=20)
    with world.cloud:
        sagemaker = world.cloud.client("sagemaker")
        wait = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
        spot = {"EnableManagedSpotTraining": True, "StoppingCondition": wait}
        sagemaker.create_training_job(**training_job("one", 3))
        sagemaker.create_training_job(**training_job("two", 3, **spot))
        _, text = refusal(sagemaker.create_training_job, **training_job("three", 2))
        assert "'Number of instances across all training jobs' is 4 Instances, with current utilization of 3" in text
        _, text = refusal(sagemaker.create_training_job, **training_job("four", 2, **spot))
        assert "'ml.m5.xlarge for spot training job usage' is 4 Instances, with current utilization of 3" in text


def configured(world: World, name: str, instances: int, instance_type: str = "ml.m5.xlarge") -> None:
    sagemaker = world.cloud.client("sagemaker")
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    )
    variant = {"VariantName": "main", "ModelName": name, "InitialInstanceCount": instances}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[{**variant, "InstanceType": instance_type}]
    )


def test_an_endpoint_s_update_needs_room_for_both_fleets(tmp_path: Path) -> None:
    world = account(tmp_path, endpoint=20)
    with world.cloud:
        sagemaker = world.cloud.client("sagemaker")
        for name, instances in (("two", 2), ("three", 3), ("five", 5)):
            configured(world, name, instances)
        _, text = refusal(sagemaker.create_endpoint, EndpointName="kennel", EndpointConfigName="five")
        assert "'Maximum number of instances per endpoint' is 4 Instances" in text
        sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="two")
        eventually(lambda: sagemaker.describe_endpoint(EndpointName="kennel")["EndpointStatus"] == "InService")
        _, text = refusal(sagemaker.update_endpoint, EndpointName="kennel", EndpointConfigName="three")
        assert "'Number of instances across active endpoints' is 4 Instances, with current utilization of 2" in text
        assert "a request delta of 3 Instances" in text
        sagemaker.update_endpoint(EndpointName="kennel", EndpointConfigName="two")


def test_a_type_that_the_table_lacks_is_not_to_be_had(new: World) -> None:
    configured(new, "gpu", 1, "ml.g5.xlarge")
    create = new.cloud.client("sagemaker").create_endpoint
    code, text = refusal(create, EndpointName="kennel", EndpointConfigName="gpu")
    assert (code, "'ml.g5.xlarge for endpoint usage' is 0 Instances" in text) == ("ResourceLimitExceeded", True)


def test_service_quotas_says_what_will_be_refused(new: World) -> None:
    quotas = new.cloud.client("service-quotas")
    listed = {one["QuotaName"]: one for one in quotas.list_service_quotas(ServiceCode="sagemaker")["Quotas"]}
    spot = listed["ml.m5.xlarge for spot training job usage"]
    assert (spot["QuotaCode"], spot["Value"]) == ("L-4CEE6BA6", 4.0)
    assert listed["ml.m5.xlarge for endpoint usage"]["Value"] == 0
    code = {"ServiceCode": "lambda", "QuotaCode": "L-B99A9384"}
    assert quotas.get_service_quota(**code)["Quota"]["Value"] == 10
    missing = {"ServiceCode": "sagemaker", "QuotaCode": "L-NONE"}
    assert refusal(quotas.get_service_quota, **missing)[0] == "NoSuchResourceException"


def test_an_account_that_is_not_new_refuses_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.cloud:
        world.cloud.client("sagemaker").create_training_job(**training_job("large", 20))


def test_preflight_says_before_a_deployment_what_a_new_account_refuses(assembly: Path, tmp_path: Path) -> None:
    world = account(tmp_path)
    with world.cloud:
        checks = examine("Prod", assembly, world.cloud.client)
    failing = {check.what for check in checks if check.verdict == "fails"}
    assert {"bootstrap stack", "Lambda concurrency to reserve (100 stay unreserved)"} <= failing
    uses = ("endpoint", "processing job", "training job")
    assert {f"ml.m5.xlarge for {use} usage" for use in uses} <= failing
