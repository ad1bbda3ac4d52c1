"""docs/workers.md, "When Deputy says no": the real SDKs for JavaScript, on a machine that has a
role of its own.

A refusal must not become somebody else's access. What the SDKs do by themselves is tried too:
should one of them begin to stop, the document may say less.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from tests.client.javascript_sdks import INSTANCE, TASK, Machine, machine
from tests.client.people import EXAMPLE, CustomerAccount, Deputy, block

NOT_KNOWN = "InvalidClientTokenId: The security token included in the request is invalid."
CHAINS = [("v2.cjs",), ("v3.cjs", "chain")]
each_chain = pytest.mark.parametrize("program", CHAINS, ids=["v2", "v3"])


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest, aws: Sandbox) -> Iterator[Machine]:
    with machine(request.config.cache.mkdir("javascript"), aws.url) as found:
        yield found


class Profile:
    """A worker's profile with deputy-credential-process, as docs/workers.md has it."""

    def __init__(self, home: Path, place: CustomerAccount, deputy: Deputy) -> None:
        self._home = home
        self._deputy = deputy
        self.place = place
        self.key_file = home / "deputy-key"
        self.key_file.write_text(place.key)

    def __call__(self, *options: str) -> dict[str, str]:
        """The variables that choose it."""
        tenant, connection = self.place.ids
        command = (
            f"{sys.executable} -m deputy_client.cli --url {self._deputy.url} --key-file"
            f" {self.key_file}"
        )
        command += f" --tenant {tenant} --connection {connection} {' '.join(options)}"
        (self._home / "config").write_text(f"[profile acme]\ncredential_process = {command}\n")
        return {"AWS_CONFIG_FILE": str(self._home / "config"), "AWS_PROFILE": "acme"}

    def documented(self) -> dict[str, str]:
        """The variables that choose the document's closed profile."""
        text = block("ini", "[profile acme-closed]")
        given = {
            "deputy-credential-process": f"{sys.executable} -m deputy_client.cli",
            "https://deputy.example.com": self._deputy.url,
            "/run/secrets/deputy-key": str(self.key_file),
            **dict(zip(EXAMPLE, self.place.ids, strict=True)),
        }
        for example, own in given.items():
            assert example in text
            text = text.replace(example, own)
        (self._home / "config").write_text(text)
        return {"AWS_CONFIG_FILE": str(self._home / "config"), "AWS_PROFILE": "acme-closed"}

    def container(self) -> dict[str, str]:
        tenant, connection = self.place.ids
        url = (
            f"{self._deputy.url}/v1/tenants/{tenant}/connections/{connection}/container-credentials"
        )
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self.key_file),
        }


@pytest.fixture
def profile(tmp_path: Path, place: CustomerAccount, deputy: Deputy) -> Profile:
    return Profile(tmp_path, place, deputy)


@pytest.fixture
def suspended(profile: Profile) -> Profile:
    profile.place.admin("/suspend", {"reason": "unpaid"})
    return profile


@each_chain
def test_the_sdks_work_in_the_customers_account_while_deputy_issues(
    node: Machine, profile: Profile, program
):
    customer = profile.place.customer.account
    assert node.who(*program, **profile()) == customer
    assert node.who(*program, **profile.container()) == customer


@each_chain
def test_without_more_a_refusal_is_the_workers_own_role(node: Machine, suspended: Profile, program):
    assert node.who(*program, **suspended()) == INSTANCE


def test_the_tasks_role_beside_a_profile_is_taken_too(node: Machine, profile: Profile):
    """By v3 after a refusal; by v2 at once, which reads the container's variables before the
    profile's command.
    """
    task = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{node.metadata}/task",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    customer = profile.place.customer.account
    assert node.who("v2.cjs", **profile("--fail-closed"), **task) == TASK
    assert node.who("v3.cjs", "chain", **profile(), **task) == customer
    profile.place.admin("/suspend", {"reason": "unpaid"})
    assert node.who("v3.cjs", "chain", **profile(), **task) == TASK
    assert node.who("v3.cjs", "chain", **profile("--fail-closed"), **task) == NOT_KNOWN


@each_chain
def test_the_documented_profile_is_closed(node: Machine, profile: Profile, program):
    assert node.who(*program, **profile.documented()) == profile.place.customer.account
    profile.place.admin("/suspend", {"reason": "unpaid"})
    assert node.who(*program, **profile.documented()) == NOT_KNOWN


@each_chain
def test_fail_closed_is_awss_own_error(node: Machine, suspended: Profile, deputy: Deputy, program):
    assert node.who(*program, **suspended(), DEPUTY_FAIL_CLOSED="1") == NOT_KNOWN
    assert {request["PATH_INFO"].rpartition("/")[2] for request in deputy.requests} == {
        "credentials"
    }


@each_chain
def test_a_command_that_is_missing_or_can_not_start_closes_nothing(
    node: Machine, profile: Profile, tmp_path: Path, program
):
    """The document's points 2 and 3 are needed as well: with the metadata service out of reach
    the program stops.
    """
    command, config = tmp_path / "deputy-credential-process", tmp_path / "config"
    config.write_text(f"[profile acme]\ncredential_process = {command} --fail-closed\n")
    given = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "acme"}
    assert node.who(*program, **given) == INSTANCE
    command.write_text("#!/bin/sh\n")
    command.chmod(0o600)
    assert node.who(*program, **given) == INSTANCE
    said = node.who(*program, **given, AWS_EC2_METADATA_DISABLED="true")
    assert INSTANCE not in said
    assert "rror" in said


@each_chain
def test_without_the_metadata_service_there_is_no_one_elses_role(
    node: Machine, suspended: Profile, program
):
    said = node.who(*program, **suspended(), AWS_EC2_METADATA_DISABLED="true")
    assert INSTANCE not in said
    assert "rror" in said


def test_v2_goes_on_from_the_container_variables_too_and_v3_stops(
    node: Machine, suspended: Profile
):
    assert node.who("v2.cjs", **suspended.container()) == INSTANCE
    said = node.who("v2.cjs", **suspended.container(), AWS_EC2_METADATA_DISABLED="true")
    assert said.startswith("CredentialsError: ")
    said = node.who("v3.cjs", "chain", **suspended.container())
    assert INSTANCE not in said


def test_a_provider_that_is_named_is_the_only_one(node: Machine, suspended: Profile):
    assert "deputy_client.cli" in node.who("v3.cjs", "fromProcess", **suspended())
    assert node.who("v3.cjs", "fromProcess", **suspended("--fail-closed")) == NOT_KNOWN
    said = node.who("v3.cjs", "fromHttp", **suspended.container())
    assert said == "suspended: Nothing is issued until it is resumed." or said.startswith(
        "suspended: "
    )


def test_from_container_metadata_ignores_the_token_file(
    node: Machine, profile: Profile, deputy: Deputy
):
    by_file = node.who("v3.cjs", "fromContainerMetadata", **profile.container())
    assert profile.place.customer.account not in by_file
    assert "HTTP_AUTHORIZATION" not in deputy.requests[0]
    variables = profile.container() | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": profile.place.key}
    assert (
        node.who("v3.cjs", "fromContainerMetadata", **variables) == profile.place.customer.account
    )
    assert node.who("v3.cjs", "fromHttp", **profile.container()) == profile.place.customer.account


@pytest.mark.parametrize(
    ("program", "attempts"), [(("v3.cjs", "fromHttp"), 4), (("v2.cjs",), 4)], ids=["v3", "v2"]
)
def test_the_sdks_ask_a_busy_deputy_several_times(
    node: Machine, profile: Profile, deputy: Deputy, program, attempts
):
    deputy.instead = lambda: (503, {"Retry-After": "1", "Content-Length": "2"}, b"{}")
    said = node.who(*program, **profile.container(), AWS_EC2_METADATA_DISABLED="true")
    assert said.startswith("Credentials")
    assert len(deputy.requests) == attempts
