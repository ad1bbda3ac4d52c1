"""DeletionPolicy: which resources stay when a stack is deleted, or when an update removes them.

`RetainExceptOnCreate` keeps a resource like `Retain`, except in the rollback of the operation that
created it:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html
"""

from moto.cloudformation.parsing import ResourceMap

_EXCEPT_ON_CREATE = "RetainExceptOnCreate"
_KEPT = ("Retain", _EXCEPT_ON_CREATE)


def created(resources: ResourceMap, logical_id: str) -> None:
    """Record that the current operation created the resource."""
    _fresh(resources).add(logical_id)


def next_operation(resources: ResourceMap) -> None:
    """Begin a new operation: nothing has been created in it yet."""
    _fresh(resources).clear()


def kept(resources: ResourceMap, logical_id: str, policy: str | None) -> bool:
    if policy == _EXCEPT_ON_CREATE:
        return logical_id not in _fresh(resources)
    return policy in _KEPT


def _fresh(resources: ResourceMap) -> set[str]:
    fresh: set[str] = resources.__dict__.setdefault("fresh", set())
    return fresh
