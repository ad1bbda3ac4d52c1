"""`make example`: the product in examples/vendor, with Deputy and a local AWS, until Ctrl-C.

Deputy has the settings of examples/vendor/deputy.env. Your own environment variables override them.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dev import run
from dev.ports import ensure_free
from dev.run_settings import Settings, StackError
from dev.stack import CLIENT, ROOT, Stack, running

EXAMPLE = ROOT / "examples" / "vendor"
# What the product's two API keys may do, and nothing else
SIGN_UP = {
    "name": "sign-up",
    "scopes": ["tenants:create", "keys:delegate"],
    "may_give": ["credentials:issue"],
}
OFFBOARDING = {"name": "offboarding", "scopes": ["tenants:write"]}


class ExampleStack(Stack):
    """The processes of `make run`, and the product instead of a first customer."""

    def prepare(self) -> None:
        self._ensure_free()
        super().prepare()

    def _ensure_free(self) -> None:
        url = urlsplit(self.product_url)
        if url.scheme != "http" or url.port is None:
            raise StackError("DEPUTY_RETURN_URLS must be the product's: http://localhost:<port>/")
        ensure_free(url.port, "DEPUTY_RETURN_URLS=http://localhost:…/ make example")

    @property
    def product_url(self) -> str:
        return self._given["DEPUTY_RETURN_URLS"].split(",")[0].rstrip("/")

    def start_product(self) -> None:
        """Create the API keys and a webhook endpoint, and start the product with only these."""
        url = self.product_url
        port = str(urlsplit(url).port)
        sign_up, offboarding = (
            self._post("/v1/api-keys", key)["key"] for key in (SIGN_UP, OFFBOARDING)
        )
        endpoint = {"url": f"{url}/webhooks/deputy", "types": ["*"]}
        secret = self._post("/v1/webhook-endpoints", endpoint)["secret"]
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": CLIENT,
            "DEPUTY_URL": self.settings.url,
            "DEPUTY_API_KEY": sign_up,
            "OFFBOARDING_KEY": offboarding,
            "WEBHOOK_SECRET": secret,
            "PRODUCT_URL": url,
            "AWS_ENDPOINT_URL": self.settings.sandbox_url,
        }
        command = ("-m", "flask", "--app", str(EXAMPLE / "product.py"), "run", "--port", port)
        self._spawn("product", *command, environment=environment)
        self._await("product", url)


class BesideRun(ExampleStack):
    """The product alone, beside the Deputy of a `make run` that uses this data folder."""

    def prepare(self) -> None:
        self._ensure_free()

    def answer_publish_request(self) -> None:
        """Do nothing: `make run` answers the request."""


def beside(note: Mapping[str, str], data: Path) -> Callable[..., BesideRun]:
    """Return a factory of stacks beside a running service. `note`: the service's URLs and key."""
    port, sandbox_port = (urlsplit(note[name]).port or 0 for name in ("url", "sandbox_url"))

    def make(_settings: Settings, env: Mapping[str, str]) -> BesideRun:
        own = Settings(port, sandbox_port, data)
        return BesideRun(own, {**env, "DEPUTY_BOOTSTRAP_KEY": note["admin_key"]})

    return make


def product_alone(stack: ExampleStack) -> run.Steps:
    stack.prepare()
    return [("the product", stack.start_product)]


def steps_of(stack: ExampleStack) -> run.Steps:
    *steps, _receiver, _first_customer = run.steps_of(stack)
    return [*steps, ("the product", stack.start_product)]


def settings(product_url: str | None) -> dict[str, str]:
    """Return the settings in deputy.env. Its paths are relative to the checkout.

    `product_url`: DEPUTY_RETURN_URLS from the environment, which replaces the product's URL
    everywhere.
    """
    values = {}
    for line in (EXAMPLE / "deputy.env").read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not name.startswith("#"):
            values[name] = str(ROOT / value) if value.startswith("examples/") else value
    if product_url:
        for name, value in values.items():
            values[name] = value.replace(values["DEPUTY_RETURN_URLS"], product_url)
    return values


def summary(stack: ExampleStack) -> str:
    return f"""
The product is ready. Sign up there as a customer, connect an AWS account, and list its buckets:

  product      {stack.product_url}
  its log      {stack.log("product")}
  Deputy's API {stack.settings.url}/v1         (documented at {stack.settings.url}/docs/)
  console      {stack.settings.sandbox_url}/console/ (the local AWS, where the stack is launched)
  admin key    {stack.admin_key}

Ctrl-C stops everything. docs/integrate.md goes through the product's code."""


if __name__ == "__main__":
    environment = settings(os.environ.get("DEPUTY_RETURN_URLS")) | os.environ
    of_run = Settings.of_running(os.environ)
    if note := running(of_run):
        print(
            "Deputy runs already: the product starts beside it, and customers see its name.",
            flush=True,
        )
        sys.exit(run.run(beside(note, of_run.data), environment, product_alone, summary))
    sys.exit(run.run(ExampleStack, environment, steps_of, summary))
