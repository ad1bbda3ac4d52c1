"""docs/workers.md, "When Deputy says no": the real SDKs for JavaScript, on a machine that has a
role of its own.

A refusal must not become somebody else's access. What the SDKs do by themselves is tried too:
should one of them begin to stop, the document may say less.
"""

from collections.abc import Iterator

import pytest

from tests.client.javascript_sdks import INSTANCE, TASK, Machine, machine
from tests.client.people import Ways, block

NOT_KNOWN = "InvalidClientTokenId: The security token included in the request is invalid."
CHAINS = [("v2.cjs",), ("v3.cjs", "chain")]
each_chain = pytest.mark.parametrize("program", CHAINS, ids=["v2", "v3"])


@pytest.fixture(scope="session")
def node(request, aws) -> Iterator[Machine]:
    with machine(request.config.cache.mkdir("javascript"), aws.url) as found:
        yield found


@pytest.fixture
def ways(tmp_path, place, deputy) -> Ways:
    return Ways(tmp_path, place, deputy.url)


@pytest.fixture
def suspended(ways) -> Ways:
    ways.place.admin("/suspend", {"reason": "unpaid"})
    return ways


@each_chain
def test_the_documented_profile_works_and_is_closed(node, ways, program):
    customer = ways.place.customer.account
    closed = ways.filled_in(block("ini", "[profile acme-closed]"))
    assert node.who(*program, **ways.container()) == customer
    assert node.who(*program, **ways.profile("acme-closed", closed)) == customer
    ways.place.admin("/suspend", {"reason": "unpaid"})
    assert node.who(*program, **ways.profile("acme-closed", closed)) == NOT_KNOWN


@each_chain
def test_without_more_a_refusal_is_the_workers_own_role_or_no_ones(node, suspended, program):
    assert node.who(*program, **suspended.process()) == INSTANCE
    answer = node.who(*program, **suspended.process(), AWS_EC2_METADATA_DISABLED="true")
    assert INSTANCE not in answer
    assert "rror" in answer


def test_the_tasks_role_beside_a_profile_is_taken_too(node, suspended):
    """By v3 after a refusal; by v2 at once, which reads the container's variables before the
    profile's command.
    """
    task = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{node.metadata}/task",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    assert node.who("v2.cjs", **suspended.process("--fail-closed"), **task) == TASK
    assert node.who("v3.cjs", "chain", **suspended.process(), **task) == TASK
    assert node.who("v3.cjs", "chain", **suspended.process("--fail-closed"), **task) == NOT_KNOWN


@each_chain
def test_a_command_that_is_missing_or_can_not_start_closes_nothing(node, tmp_path, program):
    """The document's points 2 and 3 are needed as well."""
    command, config = tmp_path / "deputy-credential-process", tmp_path / "config"
    config.write_text(f"[profile acme]\ncredential_process = {command} --fail-closed\n")
    given = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "acme"}
    assert node.who(*program, **given) == INSTANCE
    command.write_text("#!/bin/sh\n")
    command.chmod(0o600)
    assert node.who(*program, **given) == INSTANCE


def test_v2_goes_on_from_the_container_variables_too_and_v3_stops(node, suspended):
    assert node.who("v2.cjs", **suspended.container()) == INSTANCE
    assert INSTANCE not in node.who("v3.cjs", "chain", **suspended.container())


def test_a_provider_that_is_named_is_the_only_one(node, suspended):
    assert "deputy_client.cli" in node.who("v3.cjs", "fromProcess", **suspended.process())
    assert node.who("v3.cjs", "fromHttp", **suspended.container()).startswith("suspended: ")


def test_from_container_metadata_ignores_the_token_file(node, ways, deputy):
    customer = ways.place.customer.account
    by_file = node.who("v3.cjs", "fromContainerMetadata", **ways.container())
    assert customer not in by_file
    assert "HTTP_AUTHORIZATION" not in deputy.requests[0]
    variables = ways.container() | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": ways.place.key}
    assert node.who("v3.cjs", "fromContainerMetadata", **variables) == customer


@pytest.mark.parametrize("program", [("v3.cjs", "fromHttp"), ("v2.cjs",)], ids=["v3", "v2"])
def test_the_sdks_ask_a_busy_deputy_several_times(node, ways, deputy, program):
    deputy.instead = lambda: (503, {"Retry-After": "1", "Content-Length": "2"}, b"{}")
    said = node.who(*program, **ways.container(), AWS_EC2_METADATA_DISABLED="true")
    assert said.startswith("Credentials")
    assert len(deputy.requests) == 4
