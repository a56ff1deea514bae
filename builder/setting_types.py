"""What settings are made of: durations, names, and the section that refuses what nobody knows."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_duration(text: object) -> float:
    """Seconds from ``100ms``, ``30s``, ``5m`` or ``1h``.

    Raises:
        ValueError: anything else; a number without a unit too, since nobody can know which it is.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        msg = "a duration with its unit is wanted, such as 100ms, 30s, 5m or 1h"
        raise ValueError(msg)
    return float(match[1]) * _UNITS[match[2]]


Duration = Annotated[float, BeforeValidator(parse_duration)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)]
NamespaceName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[KMGT]i?)?$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Registry = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$", max_length=255)]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*$", max_length=512)]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
Host = Annotated[str, Field(pattern=r"^[a-z0-9.-]+$", max_length=253)]


class Section(BaseModel):
    """A group of settings. Unknown keys are errors, for a misspelt key is a setting that silently does nothing."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True)
