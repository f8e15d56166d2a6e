"""The notebook and the training instance as declared: closed, encrypted, allowed little."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stacks.workbench.user_data import script
from tests.stacks.synthesized import Synthesized, text

ROOT = Path(__file__).parents[3]
ROOM = ("Prod", "Workbench")


@pytest.fixture
def launch(synth: Synthesized) -> dict[str, Any]:
    """What the launch template launches."""
    data: dict[str, Any] = synth.only(*ROOM, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    return data


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions(statement: dict[str, Any]) -> list[str]:
    return listed(statement["Action"])


def test_dev_has_no_workbench(synth: Synthesized) -> None:
    assert "Workbench" not in synth.rooms("Dev")


def test_the_notebook_has_no_internet_no_root_and_an_encrypted_disk(synth: Synthesized) -> None:
    notebook = synth.only(*ROOM, "AWS::SageMaker::NotebookInstance")
    assert (notebook["DirectInternetAccess"], notebook["RootAccess"]) == ("Disabled", "Disabled")
    assert (notebook["InstanceType"], notebook["PlatformIdentifier"]) == ("ml.t3.medium", "notebook-al2023-v1")
    assert text(notebook["KmsKeyId"]).startswith("<Kennel-Prod-Data.")
    assert text(notebook["SubnetId"]).startswith("<Kennel-Prod-Network.")
    assert notebook["InstanceMetadataServiceConfiguration"] == {"MinimumInstanceMetadataServiceVersion": "2"}


def test_the_notebook_installs_the_check_that_stops_it_at_each_start(synth: Synthesized) -> None:
    (lifecycle,) = synth.resources(*ROOM, "AWS::SageMaker::NotebookInstanceLifecycleConfig")
    notebook = synth.only(*ROOM, "AWS::SageMaker::NotebookInstance")
    assert notebook["LifecycleConfigName"] == {"Fn::GetAtt": [lifecycle, "NotebookInstanceLifecycleConfigName"]}
    hook = synth.only(*ROOM, "AWS::SageMaker::NotebookInstanceLifecycleConfig")["OnStart"][0]["Content"]["Fn::Base64"]
    hook = text(hook)
    assert script("notebook_idle.py").rstrip() in hook
    assert 'notebook_idle.py"\n' in hook
    assert '"$program" 60\n' in hook  # minutes
    assert len(hook) * 4 / 3 < 16_384 - 1000  # the service's limit, after base64, with room for real names


def test_the_notebook_may_stop_itself_and_no_other(synth: Synthesized) -> None:
    (notebook,) = synth.resources(*ROOM, "AWS::SageMaker::NotebookInstance")
    stops = [each for _, each in synth.statements(*ROOM) if "NotebookInstance" in str(each["Action"])]
    assert [(each["Action"], each["Resource"]) for each in stops] == [
        ("sagemaker:StopNotebookInstance", {"Ref": notebook})
    ]


def test_each_start_copies_the_notebook_of_this_repository_and_the_stages_names(synth: Synthesized) -> None:
    hook = synth.only(*ROOM, "AWS::SageMaker::NotebookInstanceLifecycleConfig")["OnStart"][0]["Content"]["Fn::Base64"]
    start = text(hook)
    (names,) = re.findall(r"KENNEL_STAGE_END'\n(.*?)\nKENNEL_STAGE_END", start, flags=re.DOTALL)
    found = json.loads(names)
    assert (found["PipelineName"], found["EndpointName"]) == ("kennel-prod", "kennel-prod")
    assert found["DataBucketName"].startswith("<Kennel-Prod-Data.")
    assert found["FunctionAliasArn"].startswith("<Kennel-Prod-Classify.")
    for name in ("operate.ipynb", "requirements.txt"):
        (key,) = re.findall(rf'cp --no-progress "<?s3://\S+/(\w+)\.\w+>?" "\$home/{name}"', start)
        (asset,) = synth.folder.rglob(f"asset.{key}.*")
        assert asset.read_bytes() == (ROOT / "notebooks" / name).read_bytes()


def test_the_notebook_operates_this_stage_and_no_other(synth: Synthesized) -> None:
    allowed = {
        action: [text(arn).split(">:")[-1] for arn in listed(each["Resource"])]
        for role, each in synth.statements(*ROOM)
        if role.startswith("NotebookRole") and "*" not in listed(each["Resource"])
        for action in actions(each)
    }
    assert allowed["sagemaker:StartPipelineExecution"] == ["pipeline/kennel-prod"]
    assert allowed["sagemaker:ListPipelineExecutionSteps"] == ["pipeline/kennel-prod/execution/*"]
    assert allowed["sagemaker:InvokeEndpoint"] == ["endpoint/kennel-prod"]
    assert [arn.split("/", 1)[0] for arn in allowed["sagemaker:UpdateModelPackage"]] == ["model-package"]
    assert allowed["lambda:InvokeFunction"][0].startswith("<Kennel-Prod-Classify.")


def test_the_notebook_writes_only_data_sets_and_photos(synth: Synthesized) -> None:
    (write,) = [
        each
        for role, each in synth.statements(*ROOM)
        if role.startswith("NotebookRole") and actions(each) == ["s3:PutObject"]
    ]
    assert [text(each).rsplit(">", 1)[-1] for each in write["Resource"]] == ["/datasets/*", "/photos/*"]


def test_the_trainer_is_the_newest_deep_learning_image_on_a_gpu(launch: dict[str, Any]) -> None:
    assert launch["InstanceType"] == "g4dn.xlarge"
    assert launch["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-")
    assert launch["ImageId"].endswith("/latest/ami-id")


def test_the_trainer_is_stopped_when_it_powers_off(launch: dict[str, Any]) -> None:
    assert launch["InstanceInitiatedShutdownBehavior"] == "stop"


def test_the_trainer_takes_imdsv2_only_and_sees_its_tags(launch: dict[str, Any]) -> None:
    assert launch["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }


def test_the_trainers_disk_is_encrypted(launch: dict[str, Any]) -> None:
    (disk,) = launch["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True
    assert disk["Ebs"]["VolumeSize"] == 150  # GiB


def test_nothing_comes_in_and_only_https_goes_out(synth: Synthesized, launch: dict[str, Any]) -> None:
    (group,) = synth.resources(*ROOM, "AWS::EC2::SecurityGroup")
    (interface,) = launch["NetworkInterfaces"]
    assert interface["Groups"] == [{"Fn::GetAtt": [group, "GroupId"]}]
    assert interface["AssociatePublicIpAddress"] is False
    assert "KeyName" not in launch
    properties = synth.only(*ROOM, "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in properties
    assert synth.resources(*ROOM, "AWS::EC2::SecurityGroupIngress") == {}
    assert [(rule["FromPort"], rule["ToPort"]) for rule in properties["SecurityGroupEgress"]] == [(443, 443)]


def test_the_trainer_reads_data_sets_writes_its_own_runs_and_is_reached_by_session_manager(
    synth: Synthesized,
) -> None:
    allowed = {
        action: text(each["Resource"]).rsplit(">", 1)[-1]
        for role, each in synth.statements(*ROOM)
        if role.startswith("TrainerRole")
        for action in actions(each)
    }
    assert allowed["s3:GetObject"] == "/datasets/*"
    assert allowed["s3:PutObject"] == "/runs/kennel-prod/ec2/*"
    assert allowed["ssm:UpdateInstanceInformation"] == ":instance/*"
    starred = {action for action, resource in allowed.items() if resource == "*"}
    channels = {f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")}
    assert starred == channels | {"ecr:GetAuthorizationToken"}
    assert {action.split(":")[0] for action in allowed} == {"s3", "kms", "ecr", "ssm", "ssmmessages"}


def test_no_role_has_a_managed_policy(synth: Synthesized) -> None:
    for id_, role in synth.resources(*ROOM, "AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in role["Properties"], id_


def test_the_user_data_fits_and_has_no_place_left_open(launch: dict[str, Any]) -> None:
    user_data = text(launch["UserData"]["Fn::Base64"])
    assert user_data.startswith("#!/bin/bash\n")
    assert len(user_data) < 16_384
    assert "@@" not in user_data.replace("@@...@@", "")
    assert "\nBUCKET=<Kennel-Prod-Data." in user_data
    assert "\nPREFIX=runs/kennel-prod/ec2\n" in user_data


def test_the_hard_limit_comes_after_the_runs_own_limit(launch: dict[str, Any]) -> None:
    user_data = text(launch["UserData"]["Fn::Base64"])
    assert "\nRuntimeMaxSec=720min\n" in user_data  # 12 hours
    assert user_data.count("shutdown -h +735\n") == 2


def test_a_launch_takes_the_newest_version_of_the_template(synth: Synthesized) -> None:
    (template,) = synth.resources(*ROOM, "AWS::EC2::LaunchTemplate")
    command = text(synth.template(*ROOM)["Outputs"]["TrainOnEc2"]["Value"])
    assert command.startswith("aws ec2 run-instances ")
    assert f"'LaunchTemplateId=<{template}>,Version=$Latest'" in command  # the default stays the first


def test_a_value_without_a_place_in_the_script_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"notebook_idle\.py has no place for COLOUR"):
        script("notebook_idle.py", COLOUR="blue")
