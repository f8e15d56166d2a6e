"""`kennel rehearse --keep`: everything stays up, for any client that speaks to AWS, until Ctrl-C."""

from __future__ import annotations

import signal
import threading

from kennel.console import Display
from kennel.rehearsal.cloud import Cloud, Deployed


def keep_up(cloud: Cloud, deployed: Deployed, display: Display) -> None:
    """Print how ordinary clients reach what is up, and return when the user has had enough (Ctrl-C or SIGTERM)."""
    stage = deployed.stage
    endpoint = deployed.outputs[f"{stage}-Hosting"]["EndpointName"]
    function = deployed.outputs[f"{stage}-Classify"]["FunctionAliasArn"]
    bucket = deployed.outputs[f"{stage}-Data"]["DataBucketName"]
    exports = "\n".join(f"export {name}={value}" for name, value in cloud.environment().items())
    display.console.print(
        f"""
The embedded AWS stays up at {cloud.url}. In another terminal:

{exports}
kennel status --stage {stage}
kennel invoke PHOTO --stage {stage}
aws s3 cp PHOTO s3://{bucket}/photos/
echo '{{"s3_uri": "s3://{bucket}/photos/PHOTO"}}' > event.json
aws lambda invoke --function-name {function} --payload fileb://event.json answer.json
aws sagemaker-runtime invoke-endpoint --endpoint-name {endpoint} --content-type image/jpeg \\
  --body fileb://PHOTO answer.json

Ctrl-C ends it.""",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    done.wait()
