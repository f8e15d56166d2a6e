"""SageMaker's control plane, put together: which operation is whose."""

from __future__ import annotations

from kennel.rehearsal.cloud.response import Handler
from kennel.rehearsal.cloud.sagemaker.endpoints import Configs, Endpoints, Models
from kennel.rehearsal.cloud.sagemaker.jobs import Jobs
from kennel.rehearsal.cloud.sagemaker.packages import Packages, Publish
from kennel.rehearsal.cloud.sagemaker.pipelines import Executions, Pipelines
from kennel.rehearsal.cloud.sagemaker.resources import Kind
from kennel.rehearsal.cloud.sagemaker.tags import Tags
from kennel.rehearsal.interfaces import DataPlane


class SageMaker:
    """What of SageMaker the app uses; every other operation is left to moto."""

    def __init__(self, data_plane: DataPlane, publish: Publish) -> None:
        self.groups = Kind("ModelPackageGroup", "model-package-group", {"ModelPackageGroupStatus": "Completed"})
        self.packages = Packages(self.groups, publish)
        self.models = Models(self.packages)
        self.configs = Configs(self.models)
        self.endpoints = Endpoints(self.models, self.configs, data_plane)
        self.pipelines = Pipelines()
        self.executions = Executions(self.pipelines, data_plane)
        shown = {"LifecycleConfigName": "NotebookInstanceLifecycleConfigName", "SecurityGroupIds": "SecurityGroups"}
        self.notebooks = Kind(
            "NotebookInstance", "notebook-instance", {"NotebookInstanceStatus": "InService"}, shown=shown
        )
        self.scripts = Kind("NotebookInstanceLifecycleConfig", "notebook-instance-lifecycle-config")

        paths = {
            "TrainingJob": "training-job",
            "ProcessingJob": "processing-job",
            "HyperParameterTuningJob": "hyper-parameter-tuning-job",
        }
        self.jobs = [Jobs(noun, path, self.executions) for noun, path in paths.items()]

    @property
    def kinds(self) -> list[Kind]:
        first = [self.groups, self.packages, self.models, self.configs, self.endpoints]
        return [*first, self.pipelines, self.notebooks, self.scripts, *self.jobs]

    def handlers(self) -> dict[tuple[str, str], Handler]:
        found: dict[tuple[str, str], Handler] = {}
        for kind in self.kinds:
            found |= kind.handlers()
        tags = Tags(self.kinds)
        named: dict[str, Handler] = {
            "ListTags": tags.listing,
            "AddTags": tags.add,
            "StartPipelineExecution": self.executions.start,
            "StopPipelineExecution": self.executions.stop,
            "DescribePipelineExecution": self.executions.describe,
            "ListPipelineExecutions": self.executions.listing,
            "ListPipelineExecutionSteps": self.executions.steps,
            "ListPipelineParametersForExecution": self.executions.parameters,
            "DescribePipelineDefinitionForExecution": self.executions.definition,
            "ListTrainingJobsForHyperParameterTuningJob": self.jobs[-1].trials,
        }
        found |= {("sagemaker", name): handler for name, handler in named.items()}
        found["sagemaker-runtime", "InvokeEndpoint"] = self.endpoints.invoke
        return found
