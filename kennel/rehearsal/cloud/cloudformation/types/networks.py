"""EC2's network, where moto's own classes drop tags, descriptions and policies, or lack the type."""

from __future__ import annotations

from typing import Any

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row


def _permission(properties: Properties) -> dict[str, Any]:
    """Flat properties become one entry of IpPermissions."""
    entry: dict[str, Any] = {key: int(properties[key]) for key in ("FromPort", "ToPort") if key in properties}
    entry["IpProtocol"] = str(properties["IpProtocol"])
    about = {"Description": properties["Description"]} if "Description" in properties else {}
    if "CidrIp" in properties:
        entry["IpRanges"] = [{"CidrIp": properties["CidrIp"], **about}]
    for way in ("Source", "Destination"):
        if group := properties.get(f"{way}SecurityGroupId"):
            entry["UserIdGroupPairs"] = [{"GroupId": group, **about}]
        if prefixes := properties.get(f"{way}PrefixListId"):
            entry["PrefixListIds"] = [{"PrefixListId": prefixes, **about}]
    return entry


def _rule(way: str) -> Row:
    def delete(made: Made) -> None:
        revoke = getattr(admin("ec2"), f"revoke_security_group_{way.lower()}")
        revoke(GroupId=made.wanted["GroupId"], IpPermissions=[_permission(made.wanted)])

    return Row(
        type=f"AWS::EC2::SecurityGroup{way}",
        service="ec2",
        create=f"AuthorizeSecurityGroup{way}",
        shape=lambda properties: {"GroupId": properties["GroupId"], "IpPermissions": [_permission(properties)]},
        ref=lambda made: str(made.answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]),
        delete=delete,
    )


def _without_tags(properties: Properties) -> Properties:
    return {key: value for key, value in properties.items() if key != "Tags"}


def _tag(made: Made) -> None:
    if tags := made.wanted.get("Tags"):
        admin("ec2").create_tags(Resources=[made.physical], Tags=tags)


def _group(properties: Properties) -> Properties:
    named = {"GroupName": properties["GroupName"], "Description": properties["GroupDescription"]}
    return {**named, "VpcId": properties["VpcId"]}


def _fill_group(made: Made) -> None:
    """As CloudFormation: where egress rules are given, the one that allows everything goes."""
    _tag(made)
    ec2, group = admin("ec2"), made.physical
    ingress = [_permission(rule) for rule in made.wanted.get("SecurityGroupIngress", [])]
    egress = [_permission(rule) for rule in made.wanted.get("SecurityGroupEgress", [])]
    if ingress:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ingress)
    if egress and egress != [_ALL]:
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[_ALL])
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=egress)


_ALL = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}

ROWS = [
    _rule("Ingress"),
    _rule("Egress"),
    Row(
        type="AWS::EC2::VPCEndpoint",
        service="ec2",
        create="CreateVpcEndpoint",
        shape=_without_tags,
        ref=lambda made: str(made.answer["VpcEndpoint"]["VpcEndpointId"]),
        after=_tag,
        delete=lambda made: admin("ec2").delete_vpc_endpoints(VpcEndpointIds=[made.physical]),
    ),
    Row(
        type="AWS::EC2::RouteTable",
        service="ec2",
        create="CreateRouteTable",
        shape=_without_tags,
        ref=lambda made: str(made.answer["RouteTable"]["RouteTableId"]),
        attributes={"RouteTableId": lambda made: made.physical},
        after=_tag,
        delete=lambda made: admin("ec2").delete_route_table(RouteTableId=made.physical),
    ),
    Row(
        type="AWS::EC2::SecurityGroup",
        service="ec2",
        create="CreateSecurityGroup",
        name="GroupName",
        shape=_group,
        ref=lambda made: str(made.answer["GroupId"]),
        attributes={"GroupId": lambda made: made.physical, "VpcId": lambda made: str(made.wanted["VpcId"])},
        after=_fill_group,
        delete=lambda made: admin("ec2").delete_security_group(GroupId=made.physical),
    ),
]
