"""What the steps of one check share. The accounts are there from the start, the rest comes with
the steps.
"""

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
    """`settings` are Deputy's; `tenant` and `connection` are as the API answered last; `issued`
    are credentials.
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
        """Deputy's API, with the admin key."""
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
    """It, once its step is done."""
    if found is None:
        raise CheckError(f"{what} is not there yet.")
    return found
