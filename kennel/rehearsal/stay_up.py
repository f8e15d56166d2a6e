"""`kennel rehearse --keep`: everything stays up, for a browser and any client of AWS, until Ctrl-C."""

from __future__ import annotations

from kennel.console import Display
from kennel.page import Target, serve_until_stopped
from kennel.rehearsal.cloud.deployment import Deployed
from kennel.rehearsal.cloud.server import Cloud


def keep_up(cloud: Cloud, deployed: Deployed, display: Display) -> None:
    """Serve the page, print how ordinary clients reach what is up, and return when the user has had enough.

    That is at Ctrl-C or SIGTERM.
    """
    stage = deployed.stage
    function = deployed.outputs[f"{stage}-Classify"]["FunctionAliasArn"]
    target = Target(stage, function, cloud.client("lambda"), environment=cloud.environment())

    def tell(page: str) -> None:
        display.console.print(_how(cloud, deployed, page), markup=False, highlight=False, soft_wrap=True)

    serve_until_stopped(target, 0, tell)


def _how(cloud: Cloud, deployed: Deployed, page: str) -> str:
    stage = deployed.stage
    endpoint = deployed.outputs[f"{stage}-Hosting"]["EndpointName"]
    function = deployed.outputs[f"{stage}-Classify"]["FunctionAliasArn"]
    bucket = deployed.outputs[f"{stage}-Data"]["DataBucketName"]
    exports = "\n".join(f"export {name}={value}" for name, value in cloud.environment().items())
    return f"""
Drop a photo on {page}

The embedded AWS stays up at {cloud.url}. In another terminal:

{exports}
kennel status --stage {stage}
kennel invoke PHOTO --stage {stage}
aws s3 cp PHOTO s3://{bucket}/photos/
echo '{{"s3_uri": "s3://{bucket}/photos/PHOTO"}}' > event.json
aws lambda invoke --function-name {function} --payload fileb://event.json answer.json
aws sagemaker-runtime invoke-endpoint --endpoint-name {endpoint} --content-type image/jpeg \\
  --body fileb://PHOTO answer.json

Ctrl-C ends it."""
