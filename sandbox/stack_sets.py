"""AWS::CloudFormation::StackSet, service-managed: a stack in every account of the chosen units.

Each is a normal stack in its account, and fails or succeeds independently of the others. The
stacks are created in the background, one after the other. The StackSet is ready when all have
finished.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import cloudformation_backends

from sandbox import cfn_templates, cfn_waiting
from sandbox.cfn_waiting import Kind, Slow, Wait
from sandbox.organization import organization

Target = tuple[str, str]  # account and region


@dataclass(frozen=True)
class _Plan:
    """The parsed properties of a StackSet."""

    template: str
    parameters: dict[str, str]
    units: list[str]
    left_out: list[str]
    by_delegate: bool
    regions: list[str]
    tolerated_count: int
    tolerated_percentage: int

    @classmethod
    def of(cls, properties: Mapping[str, Any], account: str) -> "_Plan":
        """Parse the properties of a StackSet.

        Raises CloudFormation's errors for a template, and ValueError for unsupported properties.
        """
        if properties.get("PermissionModel") != "SERVICE_MANAGED":
            raise ValueError("The sandbox knows service-managed StackSets only.")
        groups = properties.get("StackInstancesGroup", [])
        if len(groups) != 1:
            raise ValueError("The sandbox takes exactly one StackInstancesGroup.")
        template = properties.get("TemplateBody") or cfn_templates.read(
            properties["TemplateURL"], account
        )
        cfn_templates.check_capabilities(
            cfn_templates.parse(template), properties.get("Capabilities", [])
        )
        preferences = properties.get("OperationPreferences", {})
        targets = groups[0]["DeploymentTargets"]
        return cls(
            template=template,
            parameters=_pairs(properties.get("Parameters", []))
            | _pairs(groups[0].get("ParameterOverrides", [])),
            units=targets["OrganizationalUnitIds"],
            left_out=_left_out(targets),
            by_delegate=properties.get("CallAs", "SELF") == "DELEGATED_ADMIN",
            regions=groups[0]["Regions"],
            tolerated_count=int(preferences.get("FailureToleranceCount", 0)),
            tolerated_percentage=int(preferences.get("FailureTolerancePercentage", 0)),
        )

    def targets(self, launching_account: str) -> Iterator[Target]:
        """Yield the accounts and regions to deploy to, without the management account.

        If a delegated administrator launches the StackSet, its own account is a target too.
        """
        left_out = {*self.left_out}
        if not self.by_delegate:
            left_out.add(launching_account)
        for region in self.regions:
            for account in organization.accounts(self.units):
                if account not in left_out:
                    yield account, region

    def tolerates(self, failures: int, targets: int) -> bool:
        return failures <= max(self.tolerated_count, targets * self.tolerated_percentage // 100)


def _left_out(targets: Mapping[str, Any]) -> list[str]:
    """Return the accounts that are excluded from the chosen units.

    Raises ValueError for a filter that the sandbox does not support.
    """
    kind = targets.get("AccountFilterType", "NONE")
    if kind not in ("NONE", "DIFFERENCE"):
        raise ValueError("Of the account filters the sandbox knows DIFFERENCE only.")
    if (kind == "DIFFERENCE") != bool(targets.get("Accounts")):
        raise ValueError("Accounts and the AccountFilterType DIFFERENCE belong together.")
    return list(targets.get("Accounts", []))


class StackSet(Slow):
    def __init__(self, *args: str) -> None:
        super().__init__(*args)
        self._one_operation = threading.Lock()
        self._stacks: dict[Target, Any] = {}
        self._shown: Any = None

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "StackSetId"

    def get_cfn_attribute(self, name: str) -> str:  # noqa: ARG002 - there is only one
        return self.physical_id

    def begin(self, wait: Wait, kind: Kind, properties: dict[str, Any]) -> None:
        self.sent = None if kind is Kind.DELETE else properties
        work = threading.Thread(target=self._run, args=(wait, kind, properties), daemon=True)
        cfn_waiting.post(work.start)

    def _run(self, wait: Wait, kind: Kind, properties: dict[str, Any]) -> None:
        done = partial(wait.finish, self)
        with self._one_operation:
            if kind is Kind.DELETE:
                self._forget()
                _Operation(None, done).run(self._deletions(list(self._stacks)))
                return
            try:
                plan = _Plan.of(properties, self.account_id)
                organization.check(plan.units)
            except Exception as error:  # noqa: BLE001
                # Any error in the properties fails the resource
                done(str(getattr(error, "message", "") or error))
                cfn_waiting.flush()
                return
            self._show(properties, plan)
            targets = list(plan.targets(self.account_id))
            _Operation(plan, done).run(self._steps(plan, targets, update=kind is Kind.UPDATE))

    def _steps(self, plan: _Plan, targets: list[Target], *, update: bool) -> Iterable[Any]:
        yield from self._deletions(self._stacks.keys() - set(targets))
        for target in targets:
            if target not in self._stacks:
                yield partial(self._create, target, plan)
            elif update:
                yield partial(self._update, target, plan)

    def _deletions(self, targets: Iterable[Target]) -> Iterable[Any]:
        for target in targets:
            yield partial(self._delete, target)

    def follow(self) -> None:
        """Apply a change of the organisation, if AutoDeployment is on."""
        automatic = (self.sent or {}).get("AutoDeployment", {})
        if str(automatic.get("Enabled")).lower() != "true":
            return
        retain = str(automatic.get("RetainStacksOnAccountRemoval")).lower() == "true"
        with self._one_operation:
            plan = _Plan.of(self.sent or {}, self.account_id)
            targets = list(plan.targets(self.account_id))
            if retain:
                targets += self._stacks.keys() - set(targets)
            _Operation(None, lambda _error: None).run(self._steps(plan, targets, update=False))

    def _create(self, target: Target, plan: _Plan) -> Any:
        name = f"StackSet-{self._shown.name}-{uuid.uuid4()}"
        account, region = target
        stack = cloudformation_backends[account][region].create_stack(
            name=name, template=plan.template, parameters=dict(plan.parameters)
        )
        self._stacks[target] = stack
        self._shown.instances.stack_instances.append(_Instance(self._shown.id, target, stack))
        return stack

    def _update(self, target: Target, plan: _Plan) -> Any:
        stack = self._stacks[target]
        stack.update(plan.template, parameters=dict(plan.parameters))
        return stack

    def _delete(self, target: Target) -> Any:
        stack = self._stacks.pop(target)
        shown = self._shown.instances.stack_instances
        shown[:] = [instance for instance in shown if instance.stack is not stack]
        cloudformation_backends[target[0]][target[1]].delete_stack(stack.stack_id)
        return stack

    def _show(self, properties: Mapping[str, Any], plan: _Plan) -> None:
        """Register the StackSet for DescribeStackSet and ListStackInstances."""
        self._ignore_organization()
        organization.listeners.append(self.follow)
        if self._shown is not None:
            self._shown.template, self._shown.parameters = plan.template, plan.parameters
            return
        backend = cloudformation_backends[self.account_id][self.region]
        self._shown = backend.create_stack_set(
            name=str(properties["StackSetName"]),
            template=plan.template,
            parameters=plan.parameters,
            tags={},
            permission_model="SERVICE_MANAGED",
            admin_role=None,
            exec_role=None,
            description=properties.get("Description"),
        )
        self.physical_id = self._shown.id

    def _ignore_organization(self) -> None:
        if self.follow in organization.listeners:
            organization.listeners.remove(self.follow)

    def _forget(self) -> None:
        self._ignore_organization()
        if self._shown is not None:
            self._shown.delete()


@dataclass(frozen=True)
class _Instance:
    """A stack instance, as moto lists it."""

    stack_set_id: str
    target: Target
    stack: Any

    @property
    def account_id(self) -> str:
        return self.target[0]

    @property
    def region_name(self) -> str:
        return self.target[1]

    def to_dict(self) -> dict[str, Any]:
        status, detailed = "OUTDATED", "FAILED"
        if self.stack.status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            status, detailed = "CURRENT", "SUCCEEDED"
        elif self.stack.status.endswith("_IN_PROGRESS"):
            detailed = "RUNNING"
        return {
            "StackSetId": self.stack_set_id,
            "Region": self.region_name,
            "Account": self.account_id,
            "StackId": self.stack.stack_id,
            "ParameterOverrides": [],
            "Status": status,
            "StatusReason": getattr(self.stack, "stack_status_reason", None),
            "StackInstanceStatus": {"DetailedStatus": detailed},
        }


class _Operation:
    """Starts stacks, and reports when all have settled and whether too many failed."""

    def __init__(self, plan: _Plan | None, done: Any) -> None:
        self._plan = plan
        self._done = done
        self._lock = threading.Lock()
        self._left = 1  # unfinished steps, of which `run` itself is one
        self._begun = 0
        self._reasons: list[str] = []

    def run(self, steps: Iterable[Any]) -> None:
        for step in steps:
            with self._lock:
                self._left += 1
                self._begun += 1
            try:
                stack = step()
            except Exception as error:  # noqa: BLE001
                # An error in one account does not affect the others
                self._one_less(str(getattr(error, "message", "") or error))
            else:
                cfn_waiting.when_settled(stack, self._settled)
        self._one_less(None)
        cfn_waiting.flush()

    def _settled(self, stack: Any) -> None:
        good = stack.status in {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
        self._one_less(None if good else f"{stack.account_id}: {stack.status}")

    def _one_less(self, reason: str | None) -> None:
        with self._lock:
            self._left -= 1
            if reason is not None:
                self._reasons.append(reason)
            if self._left:
                return
        failures = len(self._reasons)
        if failures and self._plan is not None and not self._plan.tolerates(failures, self._begun):
            self._done(
                f"{failures} of {self._begun} stack instances failed, more than tolerated:"
                f" {self._reasons[0]}"
            )
        else:
            self._done(None)


def _pairs(parameters: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {pair["ParameterKey"]: str(pair["ParameterValue"]) for pair in parameters}


def install() -> None:
    parsing.get_model_map()["AWS::CloudFormation::StackSet"] = StackSet
