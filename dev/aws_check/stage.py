"""The state that the steps of one check share. The steps fill in all but the accounts."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.aws_check.accounts import Account
from dev.aws_check.answers import Answers
from dev.aws_check.deputy import LocalDeputy
from dev.aws_check.stacks import Run
from dev.demo import Api


@dataclass
class Stage:
    """The accounts, and the results of the steps so far.

    `refused_role` is a role that an organization's policy refuses. `settings` are Deputy's.
    `tenant` and `connection` are the API's latest answers. `issued` are credentials.
    """

    run: Run
    accounts: list[Account]
    data: Path
    refused_role: str | None = None
    # Called after the clean-up, in reverse order
    ends: ExitStack = field(default_factory=ExitStack)
    answers: Answers = field(default_factory=Answers)
    settings: dict[str, str] = field(default_factory=dict)
    broker: Account = field(init=False)
    deputy: LocalDeputy = field(init=False)
    tenant: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)
    issued: dict[str, Any] = field(default_factory=dict)

    @property
    def vendor(self) -> Account:
        return self.accounts[0]

    @property
    def customer(self) -> Account:
        return self.accounts[1]

    def api(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """Call Deputy's API with the admin key."""
        api = Api(self.deputy.settings.url, self.deputy.admin_key)
        return api(method, path, body, expect=expect)

    @property
    def of_tenant(self) -> str:
        """The tenant's path in the API."""
        return f"/v1/tenants/{self.tenant['id']}"

    @property
    def of_connection(self) -> str:
        return f"{self.of_tenant}/connections/{self.connection['id']}"

    @property
    def role_name(self) -> str:
        return str(self.connection["role_arn"].rpartition("/")[2])

    def kit(self) -> dict[str, Any]:
        return dict(self.api("GET", f"{self.of_tenant}/onboarding"))

    def issue(self, status: int = 200) -> dict[str, Any]:
        path = f"{self.of_connection}/credentials"
        return dict(self.api("POST", path, {"reason": "aws-check"}, expect=status))
