"""SageMaker's control plane: which operation is answered by which store, and the tags of all resources."""

from kennel.rehearsal.cloud.api import Answer, ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.sagemaker.endpoints import Configs, Endpoints, Models
from kennel.rehearsal.cloud.sagemaker.packages import Packages, Publish
from kennel.rehearsal.cloud.sagemaker.pipelines import Executions, Jobs, Pipelines
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore
from kennel.rehearsal.interfaces import DataPlane


class SageMaker:
    """The operations that the app uses; moto answers every other one."""

    def __init__(self, data_plane: DataPlane, publish: Publish) -> None:
        groups = ResourceStore("ModelPackageGroup", "model-package-group", {"ModelPackageGroupStatus": "Completed"})
        packages = Packages(groups, publish)
        models = Models(packages)
        configs = Configs(models)
        self._endpoints = Endpoints(models, configs, data_plane)
        pipelines = Pipelines()
        self._executions = Executions(pipelines, data_plane)
        self._tuning = Jobs("HyperParameterTuningJob", "hyper-parameter-tuning-job", self._executions)
        training = Jobs("TrainingJob", "training-job", self._executions)
        processing = Jobs("ProcessingJob", "processing-job", self._executions)
        self._stores: list[ResourceStore] = [groups, packages, models, configs, self._endpoints, pipelines]
        self._stores += [training, processing, self._tuning]

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return the handlers by service and operation."""
        found = {name: handler for store in self._stores for name, handler in store.handlers().items()}
        found |= self._executions.handlers()
        found |= {
            "ListTags": self.list_tags,
            "AddTags": self.add_tags,
            "ListTrainingJobsForHyperParameterTuningJob": self._tuning.trials,
        }
        by_service = {("sagemaker", name): handler for name, handler in found.items()}
        return {**by_service, ("sagemaker-runtime", "InvokeEndpoint"): self._endpoints.invoke}

    def list_tags(self, call: Call) -> Answer:
        """Answer ListTags."""
        return json_answer({"Tags": self._by_arn(call.parameters["ResourceArn"]).get("Tags", [])})

    def add_tags(self, call: Call) -> Answer:
        """Answer AddTags."""
        record = self._by_arn(call.parameters["ResourceArn"])
        merged = {tag["Key"]: tag for tag in [*record.get("Tags", []), *call.parameters["Tags"]]}
        record["Tags"] = list(merged.values())
        return json_answer({"Tags": record["Tags"]})

    def _by_arn(self, arn: str) -> Record:
        for store in self._stores:
            for record in store.records.values():
                if record.get(f"{store.noun}Arn") == arn:
                    return record
        raise ApiError("ValidationException", f"Could not find resource {arn}.")
