"""Tags of SageMaker's resources."""

from __future__ import annotations

from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import Answer, ApiError, json_answer
from kennel.rehearsal.cloud.sagemaker.resources import Kind, Record


class Tags:
    """ListTags and AddTags over every kind."""

    def __init__(self, kinds: list[Kind]) -> None:
        self.kinds = kinds

    def listing(self, call: Call) -> Answer:
        return json_answer({"Tags": self._record(call).get("Tags", [])})

    def add(self, call: Call) -> Answer:
        record = self._record(call)
        merged = {tag["Key"]: tag for tag in [*record.get("Tags", []), *call.parameters["Tags"]]}
        record["Tags"] = list(merged.values())
        return json_answer({"Tags": record["Tags"]})

    def _record(self, call: Call) -> Record:
        wanted = call.parameters["ResourceArn"]
        for kind in self.kinds:
            for record in kind.records.values():
                if record.get(f"{kind.noun}Arn") == wanted:
                    return record
        raise ApiError("ValidationException", f"Could not find resource {wanted}.")
