"""The VPC has no way out but to AWS."""

from dataclasses import replace
from typing import Any

import aws_cdk as cdk
from aws_cdk import assertions

from stacks.config import PROD, NetworkSettings
from stacks.network import NetworkStack
from tests.stacks.synthesized import Synthesized, text

ENDPOINTS = "AWS::EC2::VPCEndpoint"


def test_only_prod_has_a_network(synth: Synthesized) -> None:
    assert "Network" not in synth.rooms("Dev")
    assert "Network" in synth.rooms("Prod")


def test_there_is_no_way_to_the_internet(synth: Synthesized) -> None:
    types = {each["Type"] for each in synth.template("Prod", "Network")["Resources"].values()}
    assert not types & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EIP"}
    subnets = synth.resources("Prod", "Network", "AWS::EC2::Subnet").values()
    assert [each["Properties"]["MapPublicIpOnLaunch"] for each in subnets] == [False, False]


def test_there_are_the_endpoints_that_the_workload_needs_and_no_others(synth: Synthesized) -> None:
    endpoints = [each["Properties"] for each in synth.resources("Prod", "Network", ENDPOINTS).values()]

    def services(kind: str) -> set[str]:
        return {text(each["ServiceName"]).split(">.")[-1] for each in endpoints if each["VpcEndpointType"] == kind}

    assert services("Gateway") == {"s3"}
    called = {"sagemaker.api", "sagemaker.runtime", "lambda", "logs", "ecr.api", "ecr.dkr", "ssm", "ssmmessages"}
    assert services("Interface") == called


def test_interface_endpoints_stand_in_one_zone(synth: Synthesized) -> None:
    for each in synth.resources("Prod", "Network", ENDPOINTS).values():
        if each["Properties"]["VpcEndpointType"] == "Interface":
            assert len(each["Properties"]["SubnetIds"]) == 1
            assert each["Properties"]["PrivateDnsEnabled"] is True


def statements(synth: Synthesized, kind: str) -> list[dict[str, Any]]:
    endpoints = synth.resources("Prod", "Network", ENDPOINTS).values()
    return [
        statement
        for each in endpoints
        if each["Properties"]["VpcEndpointType"] == kind
        for statement in each["Properties"]["PolicyDocument"]["Statement"]
    ]


def test_endpoints_serve_this_account_only(synth: Synthesized) -> None:
    account = {"Ref": "AWS::AccountId"}
    for statement in statements(synth, "Interface"):
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": account}}
    own, layers = statements(synth, "Gateway")
    both = {"aws:PrincipalAccount": account, "aws:ResourceAccount": account}
    assert own["Condition"] == {"StringEquals": both}
    assert layers["Action"] == "s3:GetObject"
    assert text(layers["Resource"]) == "arn:<AWS::Partition>:s3:::prod-<AWS::Region>-starport-layer-bucket/*"


def test_hosts_of_a_job_reach_one_another_and_https(synth: Synthesized) -> None:
    groups = synth.resources("Prod", "Network", "AWS::EC2::SecurityGroup")
    ((id_, jobs),) = [(id_, each) for id_, each in groups.items() if id_.startswith("Jobs")]
    (out,) = jobs["Properties"]["SecurityGroupEgress"]
    assert (out["FromPort"], out["ToPort"], out["IpProtocol"]) == (443, 443, "tcp")
    assert "SecurityGroupIngress" not in jobs["Properties"]
    own = {"Fn::GetAtt": [id_, "GroupId"]}
    (inward,) = synth.resources("Prod", "Network", "AWS::EC2::SecurityGroupIngress").values()
    (outward,) = synth.resources("Prod", "Network", "AWS::EC2::SecurityGroupEgress").values()
    # Traffic between hosts is encrypted with IPsec, which is no TCP: all protocols, but only within the group.
    assert inward["Properties"]["IpProtocol"] == outward["Properties"]["IpProtocol"] == "-1"
    assert inward["Properties"]["SourceSecurityGroupId"] == inward["Properties"]["GroupId"] == own
    assert outward["Properties"]["DestinationSecurityGroupId"] == outward["Properties"]["GroupId"] == own


def test_a_stage_may_name_its_zones() -> None:
    named = replace(PROD, network=NetworkSettings(availability_zones=("eu-west-1b", "eu-west-1c")))
    template = assertions.Template.from_stack(NetworkStack(cdk.App(), "Network", settings=named))
    zones = {each["Properties"]["AvailabilityZone"] for each in template.find_resources("AWS::EC2::Subnet").values()}
    assert zones == {"eu-west-1b", "eu-west-1c"}


def test_the_vpc_logs_its_flows(synth: Synthesized) -> None:
    flow = synth.only("Prod", "Network", "AWS::EC2::FlowLog")
    assert flow["TrafficType"] == "ALL"
    assert synth.only("Prod", "Network", "AWS::Logs::LogGroup")["RetentionInDays"] == 365
