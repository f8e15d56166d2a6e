"""Checks every call with a role's credentials against that role's synthesized policies."""

import json
from typing import Any

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.sts.models import sts_backends

from kennel.rehearsal.cloud.api import ApiError, Call
from kennel.rehearsal.cloud.clients import ACCOUNT, ADMIN
from kennel.rehearsal.cloud.iam.policy import allowed
from kennel.rehearsal.cloud.iam.required_permissions import RequiredPermission, required_permissions

_NO_TOKEN = "The security token included in the request is invalid."


class Authorizer:
    """Permits or refuses calls, and remembers each refusal in `denied`.

    The admin's key may do everything; unknown keys and unsigned calls nothing.
    """

    def __init__(self) -> None:
        self.denied: list[str] = []

    def permit(self, call: Call) -> None:
        """Return when the caller may do this; raise ApiError as the service does otherwise."""
        if call.access_key == ADMIN["AWS_ACCESS_KEY_ID"]:
            return
        role = _role_of(call)
        documents = _documents(role)
        for one in required_permissions(call):
            if not allowed([*documents, *_bucket_denials(one.resource)], one.action, one.resource, one.context):
                self._refuse(call, role, one)

    def _refuse(self, call: Call, role: str, missing: RequiredPermission) -> None:
        who = role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/rehearsal"
        where = f" on resource: {missing.resource}" if missing.resource else ""
        self.denied.append(f"{role.rpartition('/')[2]} may not {missing.action}{where}")
        text = f"User: {who} is not authorized to perform: {missing.action}{where} because no identity-based policy "
        code = "AccessDenied" if call.service in ("s3", "sts", "cloudformation", "sqs") else "AccessDeniedException"
        status = 400 if call.service == "sagemaker" else 403
        raise ApiError(code, f"{text}allows the {missing.action} action", status)


def _role_of(call: Call) -> str:
    """Return the role behind the call's key; the session token must be the one that came with it."""
    for session in sts_backends[ACCOUNT]["aws"].assumed_roles:
        if session.access_key_id == call.access_key:
            token = call.headers.get("X-Amz-Security-Token", "") or call.parameters.get("X-Amz-Security-Token")
            if token != session.session_token:
                break
            return str(session.role_arn)
    code = "InvalidAccessKeyId" if call.service == "s3" else "InvalidClientTokenId"
    raise ApiError(code, _NO_TOKEN if call.access_key else "Request is missing Authentication Token", 403)


def _documents(role_arn: str) -> list[dict[str, Any]]:
    """Return the role's inline policies, as they stand now; moto knows none of the managed policies of AWS."""
    policies = iam_backends[ACCOUNT]["aws"].get_role(role_arn.rpartition("/")[2]).policies.values()
    return [json.loads(text) if isinstance(text, str) else text for text in policies]


def _bucket_denials(resource: str | None) -> list[dict[str, Any]]:
    """Return the Deny statements for everybody in the bucket's own policy; loopback stands for TLS in conditions."""
    if not (resource or "").startswith("arn:aws:s3:::"):
        return []
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(str(resource)[13:].partition("/")[0])
    statements = json.loads(bucket.policy)["Statement"] if bucket and bucket.policy else []
    everybody = ("*", {"AWS": "*"})
    return [{"Statement": [one for one in statements if one["Effect"] == "Deny" and one["Principal"] in everybody]}]
