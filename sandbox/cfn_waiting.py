"""Slow resources (custom resources and StackSets), and the stacks that wait for them.

moto creates a stack within the call that requests it. Here the call returns after the quick
resources are created. Then the slow resources begin. The stack is complete when the last of them
has ended, by an answer, a deadline, or the end of another stack.
"""

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import Event, cloudformation_backends
from moto.core.common_models import CloudFormationModel

from sandbox import cfn_retention

# Held while a stack changes its state. It is not held while a message is sent, because the receiver
# may answer within the same call. So messages wait in the outbox until `flush`.
lock = threading.RLock()
_outbox: deque[Callable[[], None]] = deque()
_settled_calls: dict[str, list[Callable[[Any], None]]] = {}


class Kind(StrEnum):
    CREATE = "Create"
    UPDATE = "Update"
    DELETE = "Delete"


class Slow(CloudFormationModel):  # type: ignore[misc]  # moto is untyped here
    """A resource that begins to change after the quick ones, and reports its end to a `Wait`.

    `sent`: the properties of the latest change that began, even if it failed. None before the
    first.
    """

    def __init__(self, name: str, stack_id: str, logical_id: str, kind: str) -> None:
        self.physical_id = name
        self.stack_id = stack_id
        self.logical_id = logical_id
        self.kind = kind
        self.account_id, self.region = stack_id.split(":")[4], stack_id.split(":")[3]
        self.sent: dict[str, Any] | None = None
        self.removed = False
        self.deletion_policy: str | None = None  # from the last template that had the resource

    @abstractmethod
    def begin(self, wait: "Wait", kind: Kind, properties: dict[str, Any]) -> None:
        """Begin the change. The caller holds the lock. `wait.finish(self)` must follow."""

    @property
    def physical_resource_id(self) -> str:
        return self.physical_id

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, _json: Any, account_id: str, region_name: str, **of: str
    ) -> "Slow":
        stack = cloudformation_backends[account_id][region_name].get_stack(of["StackId"])
        resource = stack.custom_resources.get(of["LogicalId"])
        if type(resource) is not cls:
            resource = cls(resource_name, of["StackId"], of["LogicalId"], of["ResourceType"])
            stack.custom_resources[of["LogicalId"]] = resource
        resource.removed = False  # the rollback of an update restores what the update removed
        return resource

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: "Slow", **_: Any) -> "Slow":
        """Return the same resource. `settle` detects changes by comparing properties."""
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:  # noqa: ARG002 - moto's signature
        self.removed = True

    def is_created(self) -> bool:
        return False


@dataclass(frozen=True)
class Failure:
    """A resource that failed, and the reason."""

    logical_id: str
    reason: str


class Wait:
    """The slow resources that a stack waits for. The first failure ends the wait."""

    def __init__(
        self,
        stack: Any,
        steps: Mapping[Slow, Kind],
        done: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._stack = stack
        self._left = dict(steps)
        self._done = done
        self._failed = failed
        self.over = False

    def begin(self) -> None:
        if not self._left:
            self._end(self._done)
        for resource, kind in list(self._left.items()):
            properties = resource.sent or {}
            if kind is not Kind.DELETE:
                properties = properties_of(self._stack, resource)
            add_event(self._stack, resource, f"{kind.upper()}_IN_PROGRESS")
            resource.begin(self, kind, properties)

    def finish(self, resource: Slow, error: str | None = None) -> None:
        with lock:
            if self.over or resource not in self._left:
                return
            kind = self._left.pop(resource)
            outcome = "COMPLETE" if error is None else "FAILED"
            add_event(self._stack, resource, f"{kind.upper()}_{outcome}", error)
            if error is not None:
                self._end(lambda: self._failed(Failure(resource.logical_id, error)))
            elif not self._left:
                self._end(self._done)

    def _end(self, then: Callable[[], None]) -> None:
        self.over = True
        then()


def properties_of(stack: Any, resource: Slow) -> dict[str, Any]:
    """Return the properties in the stack's current template, with all functions resolved."""
    template = stack.template_dict["Resources"][resource.logical_id]
    properties: dict[str, Any] = parsing.clean_json(
        template.get("Properties", {}), stack.resource_map
    )
    return properties


def settle(stack: Any, done: Callable[[], None], failed: Callable[[Failure], None]) -> None:
    """Make the slow resources match the template: creations and updates first, then removals.

    AWS uses this order.
    """
    steps = {}
    for resource in stack.custom_resources.values():
        if resource.removed:
            continue
        definition = stack.template_dict["Resources"][resource.logical_id]
        resource.deletion_policy = definition.get("DeletionPolicy")
        if resource.sent != properties_of(stack, resource):
            steps[resource] = Kind.CREATE if resource.sent is None else Kind.UPDATE

    def clean_up() -> None:
        removed = _removals(stack)
        if removed:
            stack.status = stack.status.replace("_IN_PROGRESS", "_COMPLETE_CLEANUP_IN_PROGRESS")
            stack._add_stack_event(stack.status)
        # AWS completes an update even if a resource of the old template can't be removed.
        _wait(stack, removed, done, lambda _failure: done())

    _wait(stack, steps, clean_up, failed)


def remove_all(stack: Any, done: Callable[[], None], failed: Callable[[Failure], None]) -> None:
    """Remove the slow resources before the quick ones, on which they depend."""
    for resource in stack.custom_resources.values():
        resource.removed = True
    _wait(stack, _removals(stack), done, failed)


def _removals(stack: Any) -> dict[Slow, Kind]:
    """Return the slow resources to delete, without those that never began or are retained."""
    removals = {}
    for resource in stack.custom_resources.values():
        if not resource.removed or resource.sent is None:
            continue
        if cfn_retention.kept(stack.resource_map, resource.logical_id, resource.deletion_policy):
            add_event(stack, resource, "DELETE_SKIPPED")
            resource.sent = None
        else:
            removals[resource] = Kind.DELETE
    return removals


def _wait(
    stack: Any,
    steps: Mapping[Slow, Kind],
    done: Callable[[], None],
    failed: Callable[[Failure], None],
) -> None:
    with lock:
        earlier = getattr(stack, "wait", None)
        if earlier is not None:
            earlier.over = True
        stack.wait = Wait(stack, steps, done, failed)
        stack.wait.begin()


def add_event(stack: Any, resource: Any, status: str, reason: str | None = None) -> None:
    kind = stack.template_dict["Resources"].get(resource.logical_id, {}).get("Type", resource.kind)
    stack.events.append(
        Event(
            stack.stack_id,
            stack.name,
            resource.logical_id,
            resource.physical_id,
            kind,
            status,
            reason,
            resource_properties=None,
        )
    )


def end(stack: Any, status: str, reason: str | None = None) -> None:
    """Set the stack's final status, and call the functions that wait for it."""
    with lock:
        stack.status = status
        stack.stack_status_reason = reason
        stack._add_stack_event(status, resource_status_reason=reason)
        calls = _settled_calls.pop(stack.stack_id, [])
    for call in calls:
        call(stack)


def when_settled(stack: Any, call: Callable[[Any], None]) -> None:
    """Call the function when no operation of the stack is in progress, perhaps at once."""
    with lock:
        if stack.status.endswith("_IN_PROGRESS"):
            _settled_calls.setdefault(stack.stack_id, []).append(call)
            return
    call(stack)


def post(action: Callable[[], None]) -> None:
    """Queue an action for `flush`, which runs it when no lock is held."""
    _outbox.append(action)


def flush() -> None:
    while True:
        try:
            action = _outbox.popleft()
        except IndexError:
            return
        action()


def clear() -> None:
    _outbox.clear()
    _settled_calls.clear()
