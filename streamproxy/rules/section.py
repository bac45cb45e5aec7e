"""What the models of a configuration are made of: a mapping of known keys, and lists that may be written as one.

A text under a key's line in a model is what that key means. It is read by `json_schema`, for editors and manual pages.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from streamproxy.rules.values import Line, one_or_many

OneOrMany = BeforeValidator(one_or_many)
Lines = Annotated[tuple[Line, ...], OneOrMany]


class Section(BaseModel):
    """A mapping of known keys. Null is the same as leaving a key out, but for those in `never_null`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    never_null: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {field.alias or name for name, field in cls.model_fields.items()} - cls.never_null
        return {key: value for key, value in given.items() if value is not None or key not in known}


SectionT = TypeVar("SectionT", bound=Section)


def left_out(section: type[SectionT]) -> SectionT:
    """The section as it is when it's left out, the same one each time: pydantic would copy a default that has a dict
    in it, for each rule, though nothing changes it."""
    made = section()
    return Field(default_factory=lambda: made)
