"""Who may do what: every call with a role's credentials is held against that role's synthesized policies."""

from __future__ import annotations

import json
from typing import Any

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.sts.models import sts_backends

from kennel.rehearsal.cloud.clients import ACCOUNT, ADMIN
from kennel.rehearsal.cloud.iam.needs import needs
from kennel.rehearsal.cloud.iam.policy import allowed
from kennel.rehearsal.cloud.iam.sagemaker_needs import Need
from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import ApiError

_NO_TOKEN = "The security token included in the request is invalid."


class Authorizer:
    """`denied` remembers each refusal. The admin's key passes everything; unknown keys and unsigned calls nothing."""

    def __init__(self) -> None:
        self.denied: list[str] = []

    def permit(self, call: Call) -> None:
        """Return when the caller may do this; raises ApiError as the service does otherwise."""
        if call.access_key == ADMIN["AWS_ACCESS_KEY_ID"]:
            return
        role = _role_of(call)
        documents = _documents(role)
        for need in needs(call):
            if not allowed([*documents, *_bucket_denials(need.resource)], need.action, need.resource, need.context):
                self._refuse(call, role, need)

    def _refuse(self, call: Call, role: str, need: Need) -> None:
        who = role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/rehearsal"
        where = f" on resource: {need.resource}" if need.resource else ""
        self.denied.append(f"{role.rpartition('/')[2]} may not {need.action}{where}")
        text = f"User: {who} is not authorized to perform: {need.action}{where} because no identity-based policy "
        code = "AccessDenied" if call.service in ("s3", "sts", "cloudformation", "sqs") else "AccessDeniedException"
        status = 400 if call.service == "sagemaker" else 403
        raise ApiError(code, f"{text}allows the {need.action} action", status)


def _role_of(call: Call) -> str:
    """The role behind the call's key; the session token must be the one that came with it."""
    for session in sts_backends[ACCOUNT]["aws"].assumed_roles:
        if session.access_key_id == call.access_key:
            token = call.header("X-Amz-Security-Token") or call.parameters.get("X-Amz-Security-Token")
            if token != session.session_token:
                break
            return str(session.role_arn)
    code = "InvalidAccessKeyId" if call.service == "s3" else "InvalidClientTokenId"
    raise ApiError(code, _NO_TOKEN if call.access_key else "Request is missing Authentication Token", 403)


def _documents(role_arn: str) -> list[dict[str, Any]]:
    """The role's inline and managed policies, as they stand now."""
    backend = iam_backends[ACCOUNT]["aws"]
    name = role_arn.rpartition("/")[2]
    texts = [backend.get_role_policy(name, policy)[1] for policy in backend.list_role_policies(name)]
    found = [_text(one) for one in texts]
    attached, _ = backend.list_attached_role_policies(name)
    for policy in attached:
        versions = [version for version in policy.versions if version.is_default]
        found += [version.document for version in versions]
    return [json.loads(text) if isinstance(text, str) else text for text in found]


def _text(policy: Any) -> Any:
    return policy["policy_document"] if isinstance(policy, dict) and "policy_document" in policy else policy


def _bucket_denials(resource: str | None) -> list[dict[str, Any]]:
    """The Deny statements for everybody of the bucket's own policy; loopback stands for TLS in their conditions."""
    if not (resource or "").startswith("arn:aws:s3:::"):
        return []
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(str(resource)[13:].partition("/")[0])
    statements = json.loads(bucket.policy)["Statement"] if bucket and bucket.policy else []
    everybody = ("*", {"AWS": "*"})
    return [{"Statement": [one for one in statements if one["Effect"] == "Deny" and one["Principal"] in everybody]}]
