"""moto's CloudFormation, corrected: it validates as AWS does, and rolls failures back.

Unsupported features raise an error. This module has the checks before anything is created.
cfn_stacks creates, updates and deletes stacks. cfn_waiting waits for slow resources
(custom_resources and stack_sets). cfn_resources and cfn_roles correct other resource types.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.parsing import ResourceMap
from moto.cloudformation.responses import CloudFormationResponse

from sandbox import (
    cfn_resources,
    cfn_roles,
    cfn_stacks,
    cfn_templates,
    custom_resources,
    stack_sets,
)
from sandbox.cfn_parameters import check_parameters, is_list, shown
from sandbox.cfn_stacks import condition_holds

_MAX_BODY = 51_200


def _checked_request(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Check Capabilities, the template's size and its syntax, which moto ignores."""

    @wraps(original)
    def wrapper(self: Any) -> Any:
        body = self._get_param("TemplateBody")
        if body is not None and len(body.encode()) > _MAX_BODY:
            raise ValidationError(
                message=(
                    "1 validation error detected: Value at 'templateBody' failed to satisfy"
                    f" constraint: Member must have length less than or equal to {_MAX_BODY}"
                )
            )
        url = self._get_param("TemplateURL")
        if url:
            body = self._get_stack_from_s3_url(url)
        if body:
            cfn_templates.check_capabilities(
                cfn_templates.parse(body), self._get_param("Capabilities", [])
            )
        return original(self)

    return wrapper


def _read_template(self: Any, url: str) -> str:
    return cfn_templates.read(url, self.current_account)


def _check_status(_self: Any, stack: Any) -> None:
    """Refuse to update a stack that is busy, was rolled back or is stuck. moto would update it."""
    if stack.status == "ROLLBACK_COMPLETE" or stack.status.endswith(("_IN_PROGRESS", "_FAILED")):
        message = f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated."
        raise ValidationError(message=message)


def _load(self: Any) -> None:
    """Load a template as moto does, and check parameters and resource types in AWS's order."""
    check_parameters(self._template, self.input_parameters)
    self.load_mapping()
    self.transform_mapping()
    self.load_parameters()
    self.load_conditions()
    for name, resource in self._template.get("Resources", {}).items():
        if condition_holds(self, resource):
            _check_type(name, str(resource.get("Type")))
    self.validate_outputs()


def _check_type(name: str, kind: str) -> None:
    """Refuse unknown resource types. moto would omit them, and report the stack complete."""
    if not kind.startswith("Custom::") and kind not in parsing.get_model_map():
        raise ValidationError(
            message=f"The sandbox has no resource type {kind}, which resource {name} needs."
        )


def _splitting_lists(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """Split the default of a list parameter, and strip the blanks around its members.

    moto does neither. It would also split a value that is already a list, as when an update uses
    the previous value.
    """

    def load_parameters(self: Any) -> None:
        given = self.input_parameters
        self.input_parameters = {name: shown(value) for name, value in given.items()}
        original(self)
        for name, slot in self._template.get("Parameters", {}).items():
            if is_list(slot):
                members = [
                    text.strip() for text in shown(self.resolved_parameters[name]).split(",")
                ]
                self.resolved_parameters[name] = self._parsed_resources[name] = members

    return load_parameters


def _parameter_list(self: Any) -> list[dict[str, str]]:
    """Return the parameters with NoEcho masked and lists as text. moto does neither."""
    slots, parameters = self.template_dict.get("Parameters", {}), []
    for name, value in self.resource_map.resolved_parameters.items():
        text = "****" if slots.get(name, {}).get("NoEcho") else shown(value)
        parameters.append({"ParameterKey": name, "ParameterValue": text})
    return parameters


def _without_defaults(original: Callable[..., Any]) -> Callable[..., Any]:
    """Drop parameters that have neither a new nor a previous value, on which moto fails."""

    def resolve(self: Any, instance: Any, incoming_params: list[dict[str, Any]]) -> Any:
        def has_value(parameter: dict[str, Any]) -> bool:
            return "ParameterValue" in parameter or parameter["ParameterKey"] in instance.parameters

        return original(self, instance, list(filter(has_value, incoming_params)))

    return resolve


@cache
def install() -> None:
    """Patch moto, once per process: a second patch would call the first as the original."""
    for name in ("create_stack", "update_stack", "create_change_set"):
        setattr(
            CloudFormationResponse, name, _checked_request(getattr(CloudFormationResponse, name))
        )
    CloudFormationResponse._get_stack_from_s3_url = _read_template
    CloudFormationResponse._validate_status = _check_status
    ResourceMap.load = _load
    ResourceMap.load_parameters = _splitting_lists(ResourceMap.load_parameters)
    backend = CloudFormationBackend
    backend._resolve_update_parameters = _without_defaults(backend._resolve_update_parameters)
    Stack.parameter_list = property(_parameter_list)
    cfn_templates.install()
    cfn_resources.install()
    cfn_roles.install()
    custom_resources.install()
    stack_sets.install()
    cfn_stacks.install()
