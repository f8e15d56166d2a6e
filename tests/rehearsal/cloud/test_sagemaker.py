"""SageMaker's control plane over HTTP: what it stores, refuses and starts."""

import threading
from typing import Any

import pytest

from kennel.rehearsal.interfaces import EndpointAnswer, EndpointCall, PipelineExecution
from tests.rehearsal.cloud.world import World, eventually, refusal

ROLE = "arn:aws:iam::123456789012:role/any"


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    sagemaker(empty_world).create_model_package_group(ModelPackageGroupName="Dogs")
    empty_world.learn(ROLE)
    model = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    sagemaker(empty_world).create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=model)
    return empty_world


def sagemaker(world: World) -> Any:
    return world.cloud.client("sagemaker")


def variant(**members: Any) -> dict[str, Any]:
    return {"VariantName": "V", "ModelName": "m", "InstanceType": "ml.m8g.large", "InitialInstanceCount": 2, **members}


def start(world: World, **values: str) -> str:
    given = [{"Name": name, "Value": value} for name, value in values.items()]
    answer = sagemaker(world).start_pipeline_execution(PipelineName="Learn", PipelineParameters=given)
    return str(answer["PipelineExecutionArn"])


def status(world: World, arn: str) -> str:
    return str(sagemaker(world).describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"])


def test_describe_answers_all_that_create_was_given(world: World) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 10,
        "DestinationS3Uri": "s3://b/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    routing = variant(RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}, VolumeSizeInGB=20)
    sagemaker(world).create_endpoint_config(
        EndpointConfigName="whole", ProductionVariants=[routing], DataCaptureConfig=capture, KmsKeyId="key"
    )
    described = sagemaker(world).describe_endpoint_config(EndpointConfigName="whole")
    assert described["ProductionVariants"] == [routing]
    assert (described["DataCaptureConfig"], described["KmsKeyId"]) == (capture, "key")
    assert described["EndpointConfigArn"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/whole"


def test_an_instance_type_that_does_not_exist_is_refused_as_the_service_does(world: World) -> None:
    code, text = refusal(
        sagemaker(world).create_endpoint_config,
        EndpointConfigName="bad",
        ProductionVariants=[variant(InstanceType="ml.abacus.large")],
    )
    assert code == "ValidationException"
    assert "Value 'ml.abacus.large' at 'ProductionVariants.1.InstanceType'" in text


def test_a_name_is_given_once(world: World) -> None:
    create = sagemaker(world).create_model_package_group
    create(ModelPackageGroupName="once")
    assert refusal(create, ModelPackageGroupName="once")[0] == "ValidationException"


def test_a_missing_resource_is_named_with_its_arn(world: World) -> None:
    code, text = refusal(sagemaker(world).describe_endpoint, EndpointName="Nope")
    assert code == "ValidationException"
    assert text == 'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/nope".'


def test_packages_are_versions_of_their_group_newest_first(world: World) -> None:
    sagemaker(world).create_model_package_group(ModelPackageGroupName="Cats")
    arns = [package(world, "Cats") for _ in range(3)]
    assert [arn.rpartition("model-package/")[2] for arn in arns] == ["cats/1", "cats/2", "cats/3"]
    first = sagemaker(world).list_model_packages(ModelPackageGroupName="Cats", MaxResults=2)
    assert [one["ModelPackageArn"] for one in first["ModelPackageSummaryList"]] == [arns[2], arns[1]]
    rest = sagemaker(world).list_model_packages(ModelPackageGroupName="Cats", NextToken=first["NextToken"])
    assert [one["ModelPackageVersion"] for one in rest["ModelPackageSummaryList"]] == [1]


def package(world: World, group: str, status: str = "PendingManualApproval") -> str:
    container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    answer = sagemaker(world).create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus=status,
    )
    return str(answer["ModelPackageArn"])


def test_a_model_of_a_package_that_nobody_approved_is_refused(world: World) -> None:
    arn = package(world, "Dogs")
    request = {"ModelName": "pending", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"ModelPackageName": arn}}
    assert "PendingManualApproval" in refusal(sagemaker(world).create_model, **request)[1]
    sagemaker(world).update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    assert sagemaker(world).create_model(**request)["ModelArn"].endswith(":model/pending")


def test_a_pipeline_runs_with_its_defaults_overlaid(world: World) -> None:
    def run(execution: PipelineExecution) -> None:
        execution.steps.append({"StepName": "Train", "StepStatus": "Succeeded"})

    world.run = run
    arn = start(world, Data="datasets/a.manifest")
    eventually(lambda: status(world, arn) == "Succeeded")
    assert world.pipelines[-1].parameters == {"Data": "datasets/a.manifest", "Epochs": "5"}
    assert (world.pipelines[-1].arn, world.pipelines[-1].role_arn) == (arn, ROLE)
    steps = sagemaker(world).list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    assert [(one["StepName"], one["StepStatus"]) for one in steps] == [("Train", "Succeeded")]
    newest = sagemaker(world).list_pipeline_executions(PipelineName="Learn")["PipelineExecutionSummaries"][0]
    assert (newest["PipelineExecutionArn"], newest["PipelineExecutionStatus"]) == (arn, "Succeeded")


def test_a_pipeline_that_fails_says_why(world: World) -> None:
    def run(execution: PipelineExecution) -> None:
        raise RuntimeError("Train: out of dogs")

    world.run = run
    arn = start(world, Data="x")
    eventually(lambda: status(world, arn) == "Failed")
    assert (
        sagemaker(world).describe_pipeline_execution(PipelineExecutionArn=arn)["FailureReason"] == "Train: out of dogs"
    )


def test_a_pipeline_can_be_stopped_once(world: World) -> None:
    reached, go = threading.Event(), threading.Event()

    def run(execution: PipelineExecution) -> None:
        reached.set()
        assert go.wait(60)
        raise RuntimeError("stopped")

    world.run = run
    arn = start(world, Data="x")
    assert reached.wait(60)
    assert status(world, arn) == "Executing"
    sagemaker(world).stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="t" * 32)
    assert status(world, arn) == "Stopping"
    go.set()
    eventually(lambda: status(world, arn) == "Stopped")
    assert "FailureReason" not in sagemaker(world).describe_pipeline_execution(PipelineExecutionArn=arn)
    stop = sagemaker(world).stop_pipeline_execution
    assert refusal(stop, PipelineExecutionArn=arn, ClientRequestToken="t" * 32)[0] == "ConflictException"


@pytest.mark.parametrize(("values", "said"), [({}, "['Data']"), ({"Data": "x", "Epoch": "1"}, "['Epoch']")])
def test_parameters_that_do_not_fit_the_definition_are_named(world: World, values: dict[str, str], said: str) -> None:
    before = len(world.pipelines)
    with pytest.raises(Exception, match="ValidationException") as error:
        start(world, **values)
    assert said in str(error.value)
    assert len(world.pipelines) == before


def test_an_endpoint_answers_with_its_container_s_bytes_and_type(world: World) -> None:
    serve(world, "speaks")
    world.container = lambda call: EndpointAnswer(200, call.body[::-1], {"content-type": "text/plain"})
    answer = world.cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="speaks", Body=b"\x00\xff12", ContentType="image/jpeg", Accept="text/plain", CustomAttributes="c"
    )
    assert (answer["Body"].read(), answer["ContentType"]) == (b"21\xff\x00", "text/plain")
    assert answer["InvokedProductionVariant"] == "V"
    request = world.endpoint_calls[-1]
    assert (request.endpoint, request.headers["Content-Type"], request.headers["Accept"]) == (
        "speaks",
        "image/jpeg",
        "text/plain",
    )
    assert request.headers["X-Amzn-SageMaker-Custom-Attributes"] == "c"


@pytest.mark.parametrize("code", [400, 415, 503])
def test_an_error_of_the_container_is_a_model_error_that_carries_it(world: World, code: int) -> None:
    serve(world, f"fails-{code}")

    def container(call: EndpointCall) -> EndpointAnswer:
        return EndpointAnswer(code, b'{"error": {"code": "x"}}', {})

    world.container = container
    runtime = world.cloud.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as error:
        runtime.invoke_endpoint(EndpointName=f"fails-{code}", Body=b"x")
    response = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (code, '{"error": {"code": "x"}}')


def test_an_endpoint_that_is_not_there_is_a_validation_error(world: World) -> None:
    invoke = world.cloud.client("sagemaker-runtime").invoke_endpoint
    assert refusal(invoke, EndpointName="ghost", Body=b"") == (
        "ValidationError",
        "Endpoint ghost of account 123456789012 not found.",
    )


def test_an_endpoint_whose_model_does_not_load_is_failed_with_the_reason(world: World) -> None:
    world.refuse_models = "s3://b/m"
    config(world, "broken")
    sagemaker(world).create_endpoint(EndpointName="broken", EndpointConfigName="broken")
    eventually(lambda: endpoint(world, "broken")["EndpointStatus"] == "Failed")
    assert endpoint(world, "broken")["FailureReason"] == "s3://b/m does not load"
    world.refuse_models = None


def test_deleting_an_endpoint_ends_what_serves_it(world: World) -> None:
    serve(world, "brief")
    sagemaker(world).delete_endpoint(EndpointName="brief")
    assert world.deleted[-1] == "brief"
    assert refusal(sagemaker(world).describe_endpoint, EndpointName="brief")[0] == "ValidationException"


def config(world: World, name: str) -> None:
    sagemaker(world).create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant()])


def serve(world: World, name: str) -> None:
    config(world, name)
    sagemaker(world).create_endpoint(EndpointName=name, EndpointConfigName=name)
    eventually(lambda: endpoint(world, name)["EndpointStatus"] == "InService")


def endpoint(world: World, name: str) -> Any:
    return sagemaker(world).describe_endpoint(EndpointName=name)


SPOT = {
    "TrainingJobName": "spot",
    "AlgorithmSpecification": {"TrainingImage": "local/x", "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": "s3://b/runs"},
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
}


@pytest.mark.parametrize(
    ("spot", "condition"),
    [
        (False, {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}),
        (True, {"MaxRuntimeInSeconds": 60}),
        (True, {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}),
    ],
)
def test_a_waiting_time_goes_with_spot_and_only_with_it(world: World, spot: bool, condition: dict[str, int]) -> None:
    request = {**SPOT, "EnableManagedSpotTraining": spot, "StoppingCondition": condition}
    assert "MaxWaitTimeInSeconds" in refusal(sagemaker(world).create_training_job, **request)[1]


def test_a_job_has_the_status_of_the_step_that_began_it(world: World) -> None:
    condition = {"MaxRuntimeInSeconds": 60}
    arn = sagemaker(world).create_training_job(**{**SPOT, "StoppingCondition": condition})["TrainingJobArn"]
    assert sagemaker(world).describe_training_job(TrainingJobName="spot")["TrainingJobStatus"] == "InProgress"

    def run(execution: PipelineExecution) -> None:
        metadata = {"TrainingJob": {"Arn": arn}}
        execution.steps.append({"StepName": "T", "StepStatus": "Failed", "FailureReason": "no", "Metadata": metadata})

    world.run = run
    execution = start(world, Data="x")
    eventually(lambda: status(world, execution) == "Succeeded")
    about = sagemaker(world).describe_training_job(TrainingJobName="spot")
    assert (about["TrainingJobStatus"], about["FailureReason"]) == ("Failed", "no")
