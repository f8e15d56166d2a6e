"""CodeBuild's part in a deployment: a custom resource has the source of an image built, under a tag of its own."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, json_answer
from kennel.rehearsal.cloud.clients import client
from kennel.rehearsal.cloud.cloudformation.types.accepted import AcceptedResource
from kennel.rehearsal.interfaces import DataPlane


class Builds:
    """Answers StartBuild: the asset that it names is unpacked below `work` and becomes an image of the data plane."""

    def __init__(self, data_plane: DataPlane, work: Path) -> None:
        self._data_plane, self._work = data_plane, work

    def start(self, call: Call) -> Response:
        """Return when the image is built; raise ApiError with the reason when it cannot be."""
        given = {one["name"]: one["value"] for one in call.parameters["environmentVariablesOverride"]}
        bucket, _, key = given["sourceS3Url"].removeprefix("s3://").partition("/")
        context = self._work / given["imageTag"] / "context"
        try:
            archive = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            zipfile.ZipFile(io.BytesIO(archive)).extractall(context)
            self._data_plane.build_image(given["imageTag"], context)
        except Exception as error:
            raise ApiError("InvalidInputException", f"the image could not be built: {error}") from error
        return json_answer({"build": {"id": f"{call.parameters['projectName']}:{given['imageTag']}"}})


class ImageBuild(AcceptedResource):
    """The custom resource of cdklabs.deploy-time-build; here the same source and build give the same tag."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        build = cls(kwargs["ResourceType"], kwargs["LogicalId"], properties)
        variables = {"imageTag": build.tag, "sourceS3Url": properties["sourceS3Url"]}
        client("codebuild").start_build(
            projectName=properties["codeBuildProjectName"],
            environmentVariablesOverride=[{"name": name, "value": value} for name, value in variables.items()],
        )
        return build

    @property
    def physical_resource_id(self) -> str:
        return self.tag

    @property
    def tag(self) -> str:
        return hashlib.sha256(json.dumps([self.name, self.properties], sort_keys=True).encode()).hexdigest()[:16]

    def get_cfn_attribute(self, attribute: str) -> str:
        if attribute != "ImageTag":
            raise ValueError(f"An image build has no attribute {attribute}")
        return self.tag

    def change(self, properties: Any) -> bool:
        """Return false: every change is another build with another tag."""
        return False
