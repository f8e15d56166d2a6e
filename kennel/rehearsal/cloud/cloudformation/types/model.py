"""The rows of the table as classes of moto's CloudFormation."""

from __future__ import annotations

from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel

from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, make


def register_rows(rows: list[Row]) -> None:
    """Put the rows before moto's own classes in its table of types."""
    made = {row.type: _model(row) for row in rows}
    theirs = [model for model in parsing.get_model_list() if model is not Model]
    parsing.get_model_list()[:] = theirs
    parsing.get_model_map().update(made)
    parsing.get_name_type_map().update({row.type: row.name or "" for row in rows})
    kept = [model for model in theirs if model.cloudformation_type() not in made]
    parsing.get_model_list()[:] = kept + list(made.values())
    known = parsing.resource_class_from_type

    def resource_class_from_type(resource_type: str) -> type[CloudFormationModel]:
        """moto takes every Custom:: for its own attempt to run the function behind it."""
        return made.get(resource_type) or known(resource_type)

    parsing.resource_class_from_type = resource_class_from_type


def _model(row: Row) -> type[Model]:
    return type(row.type.replace("::", ""), (Model,), {"row": row, "__module__": __name__})


class Model(CloudFormationModel):
    """A resource as moto's CloudFormation wants it; `row` is set by the subclass that each type gets."""

    row: Row
    made: Made

    @classmethod
    def cloudformation_name_type(cls) -> str:
        return cls.row.name or ""

    @classmethod
    def cloudformation_type(cls) -> str:
        return cls.row.type

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in cls.row.attributes

    def get_cfn_attribute(self, attribute: str) -> str:
        if attribute not in self.row.attributes:
            raise ValueError(f"{self.row.type} has no attribute {attribute} in the embedded AWS")
        return self.row.attributes[attribute](self.made)

    @property
    def physical_resource_id(self) -> str:
        return self.made.physical

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        model = cls()
        properties = {**cloudformation_json.get("Properties", {})}
        if cls.row.type.startswith("Custom::"):  # a stand-in is named after its place in the template
            properties["LogicalId"] = kwargs["LogicalId"]
        model.made = make(cls.row, resource_name, properties)
        return model

    def change(self, wanted: Properties) -> bool:
        """Whether the resource could take on `wanted` as it is."""
        return self.row.update is not None and self.row.update(self.made, wanted)

    def delete(self, account_id: str, region_name: str) -> None:
        self.row.delete(self.made)

    def is_created(self) -> bool:
        return True
