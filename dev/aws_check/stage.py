"""The state that the steps of one check share. The steps fill in all but the accounts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dev.aws_check.accounts import Account, CheckError
from dev.aws_check.answers import Answers
from dev.aws_check.deputy import LocalDeputy
from dev.aws_check.stacks import Run
from dev.demo import Api

_Part = TypeVar("_Part")


@dataclass
class Stage:
    """The accounts, and the results of the steps so far.

    `settings` are Deputy's. `tenant` and `connection` are the API's latest answers. `issued` are
    credentials.
    """

    run: Run
    vendor: Account
    customer: Account
    canary: Account | None
    data: Path
    answers: Answers = field(default_factory=Answers)
    settings: dict[str, str] = field(default_factory=dict)
    broker: Account | None = None
    deputy: LocalDeputy | None = None
    tenant: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)
    issued: dict[str, Any] = field(default_factory=dict)

    def api(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """Call Deputy's API with the admin key."""
        deputy = there(self.deputy, "Deputy")
        return Api(deputy.settings.url, deputy.admin_key)(method, path, body, expect=expect)

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
        return dict(
            self.api(
                "POST", f"{self.of_connection}/credentials", {"reason": "aws-check"}, expect=status
            )
        )


def there(found: _Part | None, what: str) -> _Part:
    """Return the value that an earlier step must have set.

    Raises CheckError if it is None.
    """
    if found is None:
        raise CheckError(f"{what} is not there yet.")
    return found
