"""Corrections of moto's creation, update and deletion of stacks: here failures roll back."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.parsing import ResourceMap
from moto.iam.models import Role
from moto.s3.models import FakeBucket, s3_backends

from sandbox import cfn_retention, cfn_waiting
from sandbox.cfn_parameters import shown
from sandbox.cfn_waiting import Failure, Slow

_SUB_REFERENCE = re.compile(r"\$\{([A-Za-z0-9:]+)\}")

_originals: dict[str, Callable[..., Any]] = {}
_all_outputs = Stack.outputs


def condition_holds(resources: Any, resource: Mapping[str, Any]) -> bool:
    condition = resource.get("Condition")
    return condition is None or bool(resources.lazy_condition_map[condition])


def _create_stack(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Create a stack. A failure before its first resource leaves nothing, not even its name."""
    before = set(self.stacks)
    try:
        return _originals["create_stack"](self, *args, **kwargs)
    except AlreadyExistsException:
        name = [*args, kwargs.get("name")][0]
        raise AlreadyExistsException(f"Stack [{name}] already exists") from None
    except Exception:  # raised again after the incomplete stack is removed
        for stack_id in set(self.stacks) - before:
            _forget(self.stacks.pop(stack_id))
        raise


def _create_resources(self: Any) -> None:
    """Create the resources, or roll the stack back with the reason in its events, as AWS does."""
    try:
        _originals["create_resources"](self)
    except Exception as error:  # noqa: BLE001
        # The errors of moto's hundred resource types have no common base class. Any error fails
        # the stack.
        _quick_failure(self, error)
    else:
        if self.status == "CREATE_IN_PROGRESS":  # the stack has slow resources
            cfn_waiting.settle(self, partial(_created, self), partial(_roll_back, self))
    cfn_waiting.flush()


def _created(stack: Any) -> None:
    try:
        list(stack.output_map.values())  # an output may need a custom resource's data
    except ValidationError as error:
        _roll_back(stack, Failure("", error.message))
    else:
        cfn_waiting.end(stack, "CREATE_COMPLETE")


def _quick_failure(stack: Any, error: Exception) -> None:
    reason = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    logical_id = getattr(error, "logical_id", None)
    if logical_id is not None:
        kind = stack.template_dict["Resources"][logical_id]["Type"]
        failed = SimpleNamespace(logical_id=logical_id, physical_id="", kind=kind)
        cfn_waiting.add_event(stack, failed, "CREATE_FAILED", reason)
    _roll_back(stack, Failure(logical_id or "", reason))


def _roll_back(stack: Any, failure: Failure) -> None:
    reason = failure.reason
    if failure.logical_id:
        reason = f"The following resource(s) failed to create: [{failure.logical_id}]. {reason}"
    stack.status, stack.stack_status_reason = "ROLLBACK_IN_PROGRESS", reason
    stack._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=reason)
    cfn_waiting.remove_all(
        stack,
        partial(_remove_the_rest, stack, "ROLLBACK", reason),
        lambda second: cfn_waiting.end(stack, "ROLLBACK_FAILED", second.reason),
    )


def _remove_the_rest(stack: Any, verb: str, reason: str | None) -> None:
    try:
        stack.resource_map.delete()
    except Exception as error:  # noqa: BLE001
        # The errors of moto's hundred resource types have no common base class. Any error fails
        # the stack.
        cfn_waiting.end(stack, f"{verb}_FAILED", str(error))
        return
    _forget(stack)
    stack.custom_resources.clear()
    cfn_waiting.end(stack, f"{verb}_COMPLETE", reason)


def _forget(stack: Any) -> None:
    """Empty the stack's maps. Otherwise a look-up would make moto recreate deleted resources."""
    stack.resource_map._resource_json_map = {}
    stack.output_map._output_json_map = {}


def _create_resource(
    logical_id: str, definition: Any, resources: Any, *args: Any, **kwargs: Any
) -> Any:
    cfn_retention.created(resources, logical_id)
    try:
        created = _originals["parse_and_create_resource"](
            logical_id, definition, resources, *args, **kwargs
        )
    except Exception as error:
        if not hasattr(error, "logical_id"):  # the innermost resource is the one that failed
            error.logical_id = logical_id  # type: ignore[attr-defined]
        raise
    _tag(created, resources)
    return created


def _tag(created: Any, resources: Any) -> None:
    """Add the stack's own tags to its roles and buckets. AWS tags more types than these."""
    tags = []
    for key, value in resources.tags.items():
        if not key.startswith("aws:"):
            tags += [{"Key": key, "Value": value}]
    if isinstance(created, Role):
        created.stack_tags = tags
        created.tags = [*created.tags, *tags]
    elif isinstance(created, FakeBucket) and tags:
        s3_backends[created.account_id]["aws"].tagger.tag_resource(created.arn, tags)


def _delete_resource(self: Any, resource: Any, definition: Mapping[str, Any]) -> None:
    """Delete a resource unless its DeletionPolicy keeps it.

    moto reads DeletionPolicy only when it deletes a whole stack, and lacks RetainExceptOnCreate.
    """
    name, policy = getattr(resource, "logical_resource_id", ""), definition.get("DeletionPolicy")
    # cfn_waiting deletes slow resources
    if isinstance(resource, Slow) or not cfn_retention.kept(self, name, policy):
        _originals["_delete_resource"](self, resource, definition)


def _clean_json(value: Any, resources: Any) -> Any:
    """Remove AWS::NoValue from lists. moto keeps it there as None, and then fails on it."""
    cleaned = _originals["clean_json"](value, resources)
    return [item for item in cleaned if item is not None] if isinstance(value, list) else cleaned


def _update(self: Any, template: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
    """Check the whole template, update resources, then apply conditions that have changed."""
    values = parameters or self.input_parameters
    for resource in template["Resources"].values():
        # moto adds empty Properties to the templates that it has read. Without them in the new
        # template, it would consider every such resource changed.
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
    gone = set(self._resource_json_map) - set(template["Resources"])
    _originals["update"](self, template, parameters)
    # Otherwise moto would consider a resource present when a later template adds it again
    for name in gone:
        self._parsed_resources.pop(name, None)
    for name, resource in template["Resources"].items():
        _settle(self, name, resource)


def _settle(resources: Any, name: str, resource: Mapping[str, Any]) -> Any:
    """Create or remove a resource by its current condition. Return it, or None."""
    existing = resources._parsed_resources.get(name)
    if not condition_holds(resources, resource):
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
    """Update a resource, even if its condition has changed. In that case moto crashes.

    Raises ValidationError for a type that moto can't update. moto itself loses such a resource.
    """
    existed = resources._parsed_resources.get(name) is not None
    current = _settle(resources, name, resource)
    if current is None or not existed:
        return current
    updated = _originals["parse_and_update_resource"](
        name, resource, resources, account_id, region_name
    )
    if updated is None:
        raise ValidationError(
            message=f"The sandbox cannot update resource {name} of type {resource['Type']}."
        )
    return updated


def _references(template: Any) -> list[str]:
    """Return the references of a template, including those in `!Sub "${Parameter}"`.

    Without the latter, moto would not update the resource when the parameter changes.
    """
    references: list[str] = _originals["get_references_from_template"](template)
    if isinstance(template, dict) and "Fn::Sub" in template:
        references += _SUB_REFERENCE.findall(str(template["Fn::Sub"]))
    return references


def _update_stack(
    self: Any,
    template: str,
    role_arn: str | None = None,
    parameters: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Update the stack as moto does. It stays in progress until its slow resources are updated."""
    if (template, parameters or self.parameters, tags or self.tags) == (
        self.template,
        self.parameters,
        self.tags,
    ):
        raise ValidationError(self.name, "No updates are to be performed.")
    resolved = self.resource_map.resolved_parameters
    before = self.template, {name: shown(value) for name, value in resolved.items()}
    _use_template(self, template)
    cfn_retention.next_operation(self.resource_map)
    try:
        self.resource_map.update(self.template_dict, parameters)
    except Exception:
        # The error is raised again, and the stack keeps the template that its resources have
        _use_template(self, before[0])
        raise
    self.status, self.stack_status_reason = "UPDATE_IN_PROGRESS", None
    self._add_stack_event("UPDATE_IN_PROGRESS", resource_status_reason="User Initiated")
    self.parameters, self.role_arn = parameters or self.parameters, role_arn
    self.tags = self.tags if tags is None else tags
    cfn_waiting.settle(
        self, partial(_updated, self, "UPDATE_COMPLETE"), partial(_roll_back_update, self, *before)
    )
    cfn_waiting.flush()


def _use_template(stack: Any, template: str) -> None:
    stack.template = template
    stack._parse_template()


def _updated(stack: Any, status: str, reason: str | None = None) -> None:
    for name, resource in list(stack.custom_resources.items()):
        if resource.removed:
            del stack.custom_resources[name]
    stack.output_map = stack._create_output_map()
    cfn_waiting.end(stack, status, reason)


def _roll_back_update(
    stack: Any, template: str, parameters: dict[str, str], failure: Failure
) -> None:
    reason = f"The following resource(s) failed to update: [{failure.logical_id}]. {failure.reason}"
    stack.status = "UPDATE_ROLLBACK_IN_PROGRESS"
    stack._add_stack_event("UPDATE_ROLLBACK_IN_PROGRESS", resource_status_reason=reason)
    _use_template(stack, template)
    stack.resource_map.update(stack.template_dict, parameters)
    stack.parameters = parameters
    cfn_waiting.settle(
        stack,
        partial(_updated, stack, "UPDATE_ROLLBACK_COMPLETE", reason),
        lambda second: cfn_waiting.end(stack, "UPDATE_ROLLBACK_FAILED", second.reason),
    )


def _delete_stack(self: Any, name_or_stack_id: str) -> None:
    """Delete the slow resources, then the rest. moto deletes everything within the call."""
    names = {stack.name: stack for stack in reversed(self.stacks.values())}
    stack = self.stacks.get(name_or_stack_id) or names.get(name_or_stack_id)
    with cfn_waiting.lock:
        if stack is None or stack.status == "DELETE_IN_PROGRESS":
            return
        stack.status = "DELETE_IN_PROGRESS"
        cfn_retention.next_operation(stack.resource_map)
        stack._add_stack_event("DELETE_IN_PROGRESS", resource_status_reason="User Initiated")
        cfn_waiting.remove_all(
            stack,
            partial(_deleted, self, stack),
            lambda failure: cfn_waiting.end(stack, "DELETE_FAILED", failure.reason),
        )
    cfn_waiting.flush()


def _deleted(backend: Any, stack: Any) -> None:
    exports = [export.name for export in stack.exports]
    _remove_the_rest(stack, "DELETE", None)
    if stack.status == "DELETE_FAILED":
        return
    backend.deleted_stacks[stack.stack_id] = backend.stacks.pop(stack.stack_id)
    for name in exports:
        backend.exports.pop(name, None)


def _outputs(self: Any) -> Any:
    """Return the outputs of a complete stack, as AWS does.

    Return None before its creation is complete, and once a rollback or deletion has begun: the data
    of its custom resources is unknown then.
    """
    if self.status.startswith(("CREATE_IN", "ROLLBACK", "DELETE")):
        return None
    return _all_outputs.fget(self)


def _resources(self: Any) -> list[Any]:
    """List the stack's resources without the None that moto adds for a false condition."""
    return [resource for resource in self.resource_map.values() if resource is not None]


def _execute_change_set(self: Any, change_set_name: str, stack_name: str | None = None) -> None:  # noqa: ARG001
    """Execute a change set with rollback, slow resources and the new template's outputs."""
    change_set = self.describe_change_set(change_set_name)
    stack = change_set.stack
    change_set.execution_status = "EXECUTE_COMPLETE"
    if change_set.change_set_type == "UPDATE":
        stack.update(change_set.template, parameters=change_set.parameters)
        return
    _use_template(stack, change_set.template)
    stack.parameters = change_set.parameters
    stack.resource_map = stack._create_resource_map()
    stack.output_map = stack._create_output_map()
    stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
    stack.create_resources()


def install() -> None:
    """Patch moto. Call it only once, because each patch calls the function that it replaces."""
    for owner, name, replacement in (
        (CloudFormationBackend, "create_stack", _create_stack),
        (CloudFormationBackend, "delete_stack", _delete_stack),
        (CloudFormationBackend, "execute_change_set", _execute_change_set),
        (Stack, "create_resources", _create_resources),
        (ResourceMap, "update", _update),
        (ResourceMap, "_delete_resource", _delete_resource),
        (parsing, "parse_and_create_resource", _create_resource),
        (parsing, "parse_and_update_resource", _update_resource),
        (parsing, "get_references_from_template", _references),
        (parsing, "clean_json", _clean_json),
    ):
        _originals[name] = getattr(owner, name)
        setattr(owner, name, replacement)
    Stack.update = _update_stack
    Stack.outputs = property(_outputs)
    Stack.stack_resources = property(_resources)
