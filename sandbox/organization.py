"""The organisation of service-managed StackSets: its units, their accounts, and policies."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_UNIT = re.compile(r"(ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}|r-[a-z0-9]{4,32})")
_ACCOUNT = re.compile(r"[0-9]{12}")


class UnknownUnitError(Exception):
    """A unit that does not exist, in AWS's words."""


@dataclass(frozen=True)
class Unit:
    """An organisational unit, or the root, which holds all accounts."""

    id: str
    name: str
    accounts: list[str]


class Organization:
    """The sandbox's one organisation. It calls the functions in `listeners` on each change."""

    def __init__(self) -> None:
        self._units: dict[str, list[str]] = {}
        self._names: Mapping[str, str] = {}
        self._policies: dict[str, dict[str, str]] = {}
        self.listeners: list[Callable[[], None]] = []

    def units(self) -> list[Unit]:
        units = self._units.items()
        return [Unit(unit, self._names.get(unit, unit), accounts) for unit, accounts in units]

    def change(self, body: Any) -> dict[str, int]:
        """Replace the organisation by {"ous": {unit: [account, …]}}. Return each unit's size.

        With {"names": {unit: name}} the console shows units by their names. Raises TypeError or
        ValueError for anything else.
        """
        units = body.get("ous") if isinstance(body, Mapping) else None
        if not isinstance(units, Mapping):
            raise TypeError('expected {"ous": {"ou-abcd-11111111": ["100000000001"]}}')
        names = body.get("names", {})
        if not isinstance(names, Mapping) or not set(map(type, names.values())) <= {str}:
            raise TypeError('expected {"names": {"ou-abcd-11111111": "Production"}}')
        for unit, accounts in units.items():
            if not _UNIT.fullmatch(unit):
                raise ValueError(f"{unit} is no id of an organisational unit or root")
            if not isinstance(accounts, list) or not all(map(_is_account, accounts)):
                raise ValueError(
                    f"{unit} must hold a list of account ids, each a text of 12 digits"
                )
        self._units = {unit: list(accounts) for unit, accounts in units.items()}
        self._names = dict(names)
        for listener in list(self.listeners):
            listener()
        return {unit: len(accounts) for unit, accounts in self._units.items()}

    def govern(self, account: str, **policies: Mapping[str, Any]) -> None:
        """Set an account's `service_control` and `resource_control` policies: both, one or none.

        Each policy is an object. A service control policy limits the account's roles. A resource
        control policy can only deny access to them.
        """
        self._policies[account] = {kind: json.dumps(policy) for kind, policy in policies.items()}

    def policy(self, account: str, kind: str) -> str | None:
        return self._policies.get(account, {}).get(kind)

    def check(self, units: list[str]) -> None:
        """Check that all units exist.

        Raises UnknownUnitError.
        """
        if not self._units:
            raise UnknownUnitError(
                "You must enable organizations access to operate a service managed stack set"
            )
        for unit in units:
            if unit not in self._units:
                raise UnknownUnitError(
                    f"Organizational unit {unit} does not exist in the organization"
                )

    def accounts(self, units: list[str]) -> list[str]:
        """Return the accounts in these units, without duplicates. An unknown unit has none."""
        accounts: dict[str, None] = {}
        for unit in units:
            accounts |= dict.fromkeys(self._units.get(unit, []))
        return list(accounts)

    def clear(self) -> None:
        self._units = {}
        self._names = {}
        self._policies = {}
        self.listeners.clear()


def _is_account(value: Any) -> bool:
    return isinstance(value, str) and _ACCOUNT.fullmatch(value) is not None


organization = Organization()
