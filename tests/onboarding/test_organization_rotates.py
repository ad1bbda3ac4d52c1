"""An organisation's External ID is replaced: its one stack is updated twice, and every account
follows by its proofs.
"""

from collections.abc import Iterator

import pytest

from tests.conftest import publish_templates
from tests.onboarding.test_organization import (
    PATIENCE,
    Organisation,
    deployed,
    organisation_of,
    working,
)
from tests.support.databases import new_database
from tests.support.rotations import PassingMinutes
from tests.support.shells import run_as
from tests.support.versions import page_of
from tests.support.waiting import until


@pytest.fixture
def organisation(request, aws, vendor) -> Iterator[Organisation]:
    with (
        new_database() as url,
        deployed(url, vendor, sts_budget=1000) as web,  # each with database connections of its own
        deployed(url, vendor, sts_budget=1000) as background,
    ):
        publish_templates(web)
        with working(background), organisation_of(web, aws) as made:
            yield made


def update_as_the_kit_says(organisation):
    kit = organisation.world.kit(organisation.tenant)
    done = run_as(organisation.aws, organisation.account, kit["update"]["stack_set"]["aws_cli"])
    assert done.returncode == 0, done.stderr
    organisation.await_stack("UPDATE_COMPLETE")


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_an_organisation_is_rotated_by_two_updates_of_its_stack(organisation, count):
    # And the management account
    organisation.has(*(f"5{number:011}" for number in range(count - 1)))
    organisation.launch()
    organisation.await_all("verified", count)
    path = f"/v1/tenants/{organisation.tenant['id']}/external-id/rotation"
    admin, minutes_pass = organisation.world.admin, PassingMinutes(organisation.services.db)

    def await_state(state, switched):
        def there():
            minutes_pass()
            found = admin("GET", path)
            return (found["state"], found["connections"]["switched"]) == (state, switched)

        until(there, f"{switched} have switched, and it is {state}", seconds=PATIENCE)

    following = admin("POST", path, {"reason": "it is old"}, expect=201)["next_external_id"]
    [opened] = page_of(organisation.world, organisation.tenant).select(
        "#rotation details[open] > summary"
    )
    assert opened.get_text() == "You launched a stack for a whole organization"
    update_as_the_kit_says(organisation)
    await_state("ready", count)
    admin("POST", f"{path}/complete")
    update_as_the_kit_says(organisation)
    await_state("retired", count)
    assert organisation.summary() == {"total": count, "by_status": {"verified": count}}
    assert set(organisation.audited("connection.external_id_switched").values()) == {1}
    found = admin("GET", f"{organisation.path}?limit=200")["items"]
    assert {one["external_id"] for one in found} == {following}
