"""What the page says of how often a role was proven."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from app.clock import now
from app.identity import WORKER, SystemPrincipal
from app.store.models import Trigger
from app.web.onboarding.statuses import _ago, headline, progress_of
from tests.support.cast import OPERATOR, path_of


def test_the_page_counts_the_proofs_that_were_made(visitor):
    made = visitor.world.proven(visitor.tenant)
    services, tenant_id = visitor.services, UUID(made["tenant_id"])
    for _ in range(3):
        services.verification.verify(
            SystemPrincipal(WORKER, tenant_id),
            tenant_id,
            UUID(made["id"]),
            trigger=Trigger.SCHEDULED,
        )
    [proofs] = visitor.world.admin("GET", path_of(made, "/proofs"))["items"]
    since = datetime.fromisoformat(proofs["first_at"])
    assert proofs["count"] == 4
    assert visitor.page().select(".steps li")[-1].small.text == (
        f"All checks passed. Proven 4 times since {since.day} {since:%B %Y},"
        " last less than an hour ago."
    )


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (-5, "less than an hour ago"),
        (3599, "less than an hour ago"),
        (7199, "1 hour ago"),
        (7200, "2 hours ago"),
        (200_000, "2 days ago"),
    ],
)
def test_the_time_that_has_passed_in_words(passed, words):
    assert _ago(now() - timedelta(seconds=passed, milliseconds=500)) == words


def test_a_role_whose_external_id_was_withdrawn_is_not_called_connected(visitor):
    """Also after a rotation has ended, when its headline no longer says so."""
    made = visitor.world.proven(visitor.tenant)
    visitor.rotate(reason="x", emergency=True)
    connection = visitor.services.connections.get(
        OPERATOR, UUID(made["tenant_id"]), UUID(made["id"])
    )
    progress = progress_of(connection)
    assert [step.state for step in progress.steps] == ["done", "done", "failed", "todo", "todo"]
    said = headline({connection.status: 1}, [progress])
    assert said == "Your External ID was withdrawn: your role must accept the new one."
