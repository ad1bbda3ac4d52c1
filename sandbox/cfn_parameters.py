"""Checks of the constraints of a CloudFormation template's parameters, which moto lacks.

Errors have AWS's words.
"""

import re
from collections.abc import Mapping
from typing import Any

from moto.cloudformation.exceptions import ValidationError


def check_parameters(template: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    slots = template.get("Parameters") or {}
    unknown = sorted(set(given) - set(slots))
    if unknown and template:
        raise ValidationError(
            message=f"Parameters: [{', '.join(unknown)}] do not exist in the template"
        )
    for name, slot in slots.items():
        value = given.get(name, slot.get("Default"))
        if value is not None:
            _check(name, slot, shown(value))


def shown(value: Any) -> str:
    """Return a parameter's value as the text that AWS takes and shows."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def is_list(slot: Mapping[str, Any]) -> bool:
    return str(slot.get("Type", "")).startswith(("CommaDelimitedList", "List<"))


def _check(name: str, slot: Mapping[str, Any], value: str) -> None:
    members = [value]
    if is_list(slot):
        members = [part.strip() for part in value.split(",")]
    for member in members:
        complaint = _complaint(name, slot, member)
        if complaint is None:
            continue
        described = slot.get("ConstraintDescription")
        if described is not None:
            complaint = f"Parameter {name} failed to satisfy constraint: {described}"
        raise ValidationError(message=complaint)


def _complaint(name: str, slot: Mapping[str, Any], value: str) -> str | None:
    if "AllowedValues" in slot and value not in map(str, slot["AllowedValues"]):
        return f"Parameter '{name}' must be one of AllowedValues"
    if "AllowedPattern" in slot and not re.fullmatch(str(slot["AllowedPattern"]), value):
        return f"Parameter '{name}' must match pattern {slot['AllowedPattern']}"
    if len(value) < int(slot.get("MinLength", 0)):
        return f"Parameter '{name}' must contain at least {slot['MinLength']} characters"
    if len(value) > int(slot.get("MaxLength", len(value))):
        return f"Parameter '{name}' must contain at most {slot['MaxLength']} characters"
    return _number_complaint(name, slot, value) if "Number" in str(slot.get("Type")) else None


def _number_complaint(name: str, slot: Mapping[str, Any], value: str) -> str | None:
    try:
        number = float(value)
    except ValueError:
        return f"Parameter '{name}' must be a number."
    if number < float(slot.get("MinValue", number)):
        return f"Parameter '{name}' must be a number not less than {slot['MinValue']}"
    if number > float(slot.get("MaxValue", number)):
        return f"Parameter '{name}' must be a number not greater than {slot['MaxValue']}"
    return None
