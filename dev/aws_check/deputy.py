"""Deputy on this machine, as the broker of the run, against whichever AWS the check talks to."""

import os
from collections.abc import Mapping
from pathlib import Path

from dev.aws_check.accounts import Account
from dev.stack import Settings, Stack, end_process, free_port

# Of the operator's environment, what a process needs to run and to reach AWS from here.
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
    """A web process and a background worker. It needs no public address: it asks the
    registration queue by itself.
    """

    web_processes = 1

    def __init__(
        self, data: Path, deputy: Mapping[str, str], broker: Account, publisher: Account
    ) -> None:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        # Launch links then point to AWS's own console, which nobody opens here.
        super().__init__(
            Settings(free_port(), free_port(), data),
            kept | {"DEPUTY_CONSOLE_URL": ""} | dict(deputy),
        )
        self._broker, self._publishes = broker, publisher

    def prepare(self) -> None:
        """Without a look at the permission sets, which publishing begins with."""
        self._take_data_dir()
        self._commands("migrate", "keys bootstrap")

    def _aws(self) -> dict[str, str]:
        where = {name: os.environ[name] for name in _ENDPOINT if name in os.environ}
        return where | {"AWS_REGION": self._broker.region} | self._broker.environment()

    def _publisher(self) -> dict[str, str]:
        return {"AWS_SESSION_TOKEN": ""} | self._publishes.environment()

    def stop_worker(self) -> None:
        if worker := self._children.pop("worker", None):
            end_process(worker)

    def ensure_worker(self) -> None:
        """Customers' stacks wait for its answer, also when they are rolled back."""
        if "web" in self._children and "worker" not in self._children:
            self.start_worker()

    def doctor(self) -> str:
        """What `doctor --json` prints."""
        return self._commands("doctor --json", may_exit=(0, 1, 2))
