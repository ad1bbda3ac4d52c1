"""Deputy on this machine, as the broker of the run, against the AWS of the check."""

import os
from collections.abc import Mapping
from pathlib import Path

from dev.aws_check.accounts import Account
from dev.ports import free_port
from dev.run_settings import Settings
from dev.stack import Stack, end_process

# The operator's variables that Deputy's processes need to run and to reach AWS
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "no_proxy",
)
_ENDPOINT = ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE")


class LocalDeputy(Stack):
    """A web process and a background worker.

    They need no public address, because the background worker polls the registration queue.
    """

    web_processes = 1

    def __init__(
        self, data: Path, deputy: Mapping[str, str], broker: Account, publisher: Account
    ) -> None:
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env["DEPUTY_CONSOLE_URL"] = ""  # launch links lead to AWS's console; nobody opens them
        super().__init__(Settings(free_port(), free_port(), data), env | dict(deputy))
        self._broker, self._publishes = broker, publisher

    def _aws(self) -> dict[str, str]:
        endpoint = {name: os.environ[name] for name in _ENDPOINT if name in os.environ}
        return endpoint | {"AWS_REGION": self._broker.region} | self._broker.environment()

    def _publisher(self) -> dict[str, str]:
        return self._publishes.environment()

    def stop_worker(self) -> None:
        if worker := self._children.pop("worker", None):
            end_process(worker)

    def ensure_worker(self) -> None:
        """Start the background worker if it is stopped.

        Customers' stacks wait for its answers, even in a rollback.
        """
        if "web" in self._children and "worker" not in self._children:
            self.start_worker()

    def doctor(self) -> str:
        """Return the output of `doctor --json`."""
        return self._commands("doctor --json", may_exit=(0, 1, 2))
