"""The ports, the data folder and the settings with which `make run` starts the service."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.connections.kit_names import stack_name

_DATA = Path(__file__).resolve().parent.parent / ".data"
_BROKER = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?P<name>[A-Za-z0-9_+=,.@-]{1,64})")
# Regions besides us-east-1. The second is opt-in, so SNS sends from it under a regional name.
_FURTHER_REGIONS = "eu-central-1,eu-south-1"
_QUOTE = "'\"'\"'"  # ends the shell's quotes, writes a quote, and begins them again


class StackError(Exception):
    """A part can't start. The message is one line with the reason."""


def ensure_fresh_shell(env: Mapping[str, str]) -> None:
    """Raise StackError in a shell with the settings of an earlier run, whose sandbox has ended."""
    if "DEPUTY_REGISTRATION_QUEUE_URL" in env:
        raise StackError(
            "This shell has the settings of another run (. .data/env). Use another shell."
        )


@dataclass(frozen=True)
class Settings:
    """The ports and the data folder, from PORT, SANDBOX_PORT and DEPUTY_DATA_DIR."""

    port: int
    sandbox_port: int
    data: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        data = Path(env.get("DEPUTY_DATA_DIR") or _DATA).absolute()
        port, sandbox_port = _port(env, "PORT", "8000"), _port(env, "SANDBOX_PORT", "4566")
        if port == sandbox_port:
            raise StackError(f"PORT and SANDBOX_PORT are both {port}; each needs its own port.")
        return cls(port, sandbox_port, data)

    @classmethod
    def of_running(cls, env: Mapping[str, str]) -> "Settings":
        """Return settings for the data folder, where a running service records its own ports."""
        return cls.from_environment({"DEPUTY_DATA_DIR": env.get("DEPUTY_DATA_DIR", "")})

    @property
    def publish_request(self) -> Path:
        """The file by which `make publish` sends a request to `make run`, which removes it."""
        return self.data / "publish"

    @property
    def publish_answer(self) -> Path:
        return self.data / "published"

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://localhost:{self.sandbox_port}"


def _port(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name) or default
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise StackError(f"{name}={text} is not a port; choose one from 1 to 65535.")
    return int(text)


def setting(env: Mapping[str, str], name: str) -> str | None:
    """Return a setting as the service reads it: from the file in NAME_FILE, or from NAME.

    A file that can't be read is left for the service to report.
    """
    if path := env.get(f"{name}_FILE"):
        with contextlib.suppress(OSError):
            return Path(path).read_text().strip()
    return env.get(name)


def broker(env: Mapping[str, str]) -> tuple[str, str]:
    """Return the account and the name of the role that the service acts as.

    Raises StackError for a role that broker.yaml can't create.
    """
    arn = _BROKER.fullmatch(setting(env, "DEPUTY_BROKER_PRINCIPAL_ARN") or "")
    if arn is None:
        raise StackError(
            "DEPUTY_BROKER_PRINCIPAL_ARN: the sandbox makes the broker from"
            " cloudformation/broker.yaml, a role without a path; set"
            " arn:aws:iam::<account>:role/<name>, or remove the setting."
        )
    return arn["account"], arn["name"]


def vendor_arguments(env: Mapping[str, str]) -> list[str]:
    """Return the sandbox's arguments for a vendor's stack that matches the service's settings.

    The settings become broker.yaml's parameters.
    """
    account, name = broker(env)
    prefix = setting(env, "DEPUTY_ROLE_PREFIX")
    stack = stack_name("deputy-" if prefix is None else prefix, "broker")
    arguments = ["--vendor-account", account, "--vendor-stack", stack]
    for parameter, value in {
        "BrokerRoleName": name,
        "RolePrefix": prefix,
        "ImportedRoleNames": setting(env, "DEPUTY_IMPORTED_ROLE_NAMES"),
        "TemplateBucketName": setting(env, "DEPUTY_TEMPLATE_BUCKET"),
        "VendorAccountIds": setting(env, "DEPUTY_VENDOR_ACCOUNT_IDS"),
        "RegistrationRegions": _FURTHER_REGIONS,
    }.items():
        if value is not None:
            arguments += ["--vendor-parameter", f"{parameter}={value}"]
    return arguments


def exports(env: Mapping[str, str]) -> str:
    """Return the service's settings and AWS's variables for the shell, with every value quoted."""
    text = ""
    for name, value in sorted(env.items()):
        if re.fullmatch(r"(DEPUTY|AWS)_[A-Za-z0-9_]+", name):
            quoted = value.replace("'", _QUOTE)
            text += f"export {name}='{quoted}'\n"
    return text
