"""How moto's CloudFormation creates, updates and deletes stacks, corrected: what fails is taken back, what is gone stays gone."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError
from moto.cloudformation.models import CloudFormationBackend, Event, Stack
from moto.cloudformation.parsing import ResourceMap

_SUB_REFERENCE = re.compile(r"\$\{([A-Za-z0-9:]+)\}")

_originals: dict[str, Callable[..., Any]] = {}


def wanted(resources: Any, resource: Mapping[str, Any]) -> bool:
    condition = resource.get("Condition")
    return condition is None or bool(resources.lazy_condition_map[condition])


def _create_stack(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A stack that fails before its first resource leaves nothing, not even its name."""
    before = set(self.stacks)
    try:
        return _originals["create_stack"](self, *args, **kwargs)
    except AlreadyExistsException:
        raise
    except Exception:
        for stack_id in set(self.stacks) - before:
            _forget(self.stacks.pop(stack_id))
        raise


def _create_resources(self: Any) -> None:
    """AWS accepts the stack, then takes back what was made and says why in the events: so does this."""
    try:
        _originals["create_resources"](self)
    except Exception as error:  # noqa: BLE001 - whatever moto's hundred resource types raise
        _roll_back(self, error)


def _roll_back(stack: Any, error: Exception) -> None:
    reason = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    logical_id = getattr(error, "logical_id", None)
    if logical_id is not None:
        kind = stack.template_dict["Resources"][logical_id]["Type"]
        stack.events.append(
            Event(
                stack.stack_id,
                stack.name,
                logical_id,
                "",
                kind,
                "CREATE_FAILED",
                reason,
                resource_properties=None,
            )
        )
        reason = f"The following resource(s) failed to create: [{logical_id}]. {reason}"
    stack._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=reason)
    stack.resource_map.delete()
    _forget(stack)
    stack.status = "ROLLBACK_COMPLETE"
    stack.stack_status_reason = reason
    stack._add_stack_event("ROLLBACK_COMPLETE")


def _forget(stack: Any) -> None:
    """Moto makes resources when they are looked up, so that describing what is gone would bring it back."""
    stack.resource_map._resource_json_map = {}
    stack.output_map._output_json_map = {}


def _create_resource(logical_id: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return _originals["parse_and_create_resource"](logical_id, *args, **kwargs)
    except Exception as error:
        if not hasattr(error, "logical_id"):  # the innermost is the one that failed
            error.logical_id = logical_id  # type: ignore[attr-defined]
        raise


def _clean_json(value: Any, resources: Any) -> Any:
    """Moto keeps AWS::NoValue in lists as a None, over which it then falls."""
    cleaned = _originals["clean_json"](value, resources)
    return [item for item in cleaned if item is not None] if isinstance(value, list) else cleaned


def _update(self: Any, template: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
    """Checks everything before it touches anything; afterwards, conditions that have changed take effect."""
    values = parameters or self.input_parameters
    for resource in template["Resources"].values():
        # Moto adds this to the templates that it has read, and then takes every such resource for changed.
        resource.setdefault("Properties", {})
    ResourceMap(
        self.stack_id,
        self["AWS::StackName"],
        values,
        self.tags,
        self._region_name,
        self._account_id,
        template,
        self.cross_stack_resources,
    ).load()
    _originals["update"](self, template, parameters)
    for name, resource in template["Resources"].items():
        _settle(self, name, resource)


def _settle(resources: Any, name: str, resource: Mapping[str, Any]) -> Any:
    """Makes or removes a resource as its condition now says. Returns it, or None."""
    existing = resources._parsed_resources.get(name)
    if not wanted(resources, resource):
        if existing is not None:
            resources._delete_resource(existing, resource)
        resources._parsed_resources.pop(name, None)
        return None
    if existing is None:
        resources._parsed_resources.pop(name, None)
    return resources[name]


def _update_resource(
    name: str, resource: dict[str, Any], resources: Any, account_id: str, region_name: str
) -> Any:
    """Moto loses resources whose type it cannot update, and crashes on those whose condition has changed."""
    existed = resources._parsed_resources.get(name) is not None
    current = _settle(resources, name, resource)
    if current is None or not existed:
        return current
    updated = _originals["parse_and_update_resource"](name, resource, resources, account_id, region_name)
    if updated is None:
        raise ValidationError(
            message=f"The sandbox cannot update resource {name} of type {resource['Type']}."
        )
    return updated


def _references(template: Any) -> list[str]:
    """Moto does not see that `!Sub "${Parameter}"` depends on the parameter, and would not update the resource."""
    found: list[str] = _originals["get_references_from_template"](template)
    if isinstance(template, dict) and "Fn::Sub" in template:
        found += _SUB_REFERENCE.findall(str(template["Fn::Sub"]))
    return found


def _delete(self: Any) -> None:
    _originals["delete"](self)
    _forget(self)


def _execute_change_set(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
    """Moto leaves the stack with the template and the outputs from before the change set."""
    change_set = self.describe_change_set(change_set_name)
    _originals["execute_change_set"](self, change_set_name, stack_name)
    stack = change_set.stack
    stack._parse_template()
    stack.parameters = change_set.parameters
    stack.output_map = stack._create_output_map()


def install() -> None:
    """Patches moto. Only to be called once, for each patch calls what it replaces."""
    for owner, name, replacement in (
        (CloudFormationBackend, "create_stack", _create_stack),
        (CloudFormationBackend, "execute_change_set", _execute_change_set),
        (Stack, "create_resources", _create_resources),
        (Stack, "delete", _delete),
        (ResourceMap, "update", _update),
        (parsing, "parse_and_create_resource", _create_resource),
        (parsing, "parse_and_update_resource", _update_resource),
        (parsing, "get_references_from_template", _references),
        (parsing, "clean_json", _clean_json),
    ):
        _originals[name] = getattr(owner, name)
        setattr(owner, name, replacement)
