"""Rules of security groups that stand by themselves: moto has no egress one, and gives the ingress one no id."""

from __future__ import annotations

from typing import Any

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.types.table import Made, Properties, Row


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


ROWS = [_rule("Ingress"), _rule("Egress")]
