"""Each advice of a diagnosis begins with who can follow it: the vendor, the customer, or either."""

import pytest

from app.aws.errors import Misconfigured, Refused, Unavailable
from app.aws.role_view import RoleSettings, RoleView
from app.config import Broker
from app.diagnosis.role_rights import Gap
from app.diagnosis.steps import Evidence, for_the_tenant, steps
from app.health.checks import failed, warning
from app.proofs.canary import Sight
from tests.conftest import make_config

CONFIG = make_config("sqlite://")
USER = make_config(
    "sqlite://",
    broker=Broker.parse("arn:aws:iam::111122223333:user/Broker"),
    max_session_seconds=43_200,
)
OFF = Misconfigured("The account has switched STS off in the region that Deputy works from.")
READ = RoleView(RoleSettings({}, 3600, "arn:aws:iam::444455556666:policy/Boundary"), Refused(), {})
UNREAD = RoleView(Refused(), Refused(), Refused())
SILENT = RoleView(Unavailable(), Unavailable(), Unavailable())


def seen(config=CONFIG, *, identity=True, **more) -> Evidence:
    return Evidence(config, identity, **more)


def lacking(cause) -> Evidence:
    return seen(view=READ, gaps=(Gap("s3:ListBucket", "*", cause),))


CASES = [
    ("our_credentials", "unknown", "Vendor: look at the network", seen(identity=Unavailable())),
    ("our_credentials", "problem", "Vendor: look at this process's task role", seen(identity=None)),
    ("our_identity", "problem", "Vendor: run this process as the broker", seen(identity=False)),
    (
        "canary",
        "problem",
        "Vendor: mend the policy",
        seen(canary=(Sight.BLIND, failed("It refuses.", "mend the policy"))),
    ),
    (
        "canary",
        "unknown",
        "Vendor: make it again",
        seen(canary=(Sight.LOST, warning("It is gone.", "make it again"))),
    ),
    (
        "aws_lets_us_try",
        "problem",
        "Vendor: compare DEPUTY_ROLE_PREFIX",
        seen(not_allowed="Its name."),
    ),
    ("aws_lets_us_try", "unknown", "Vendor: try again in a minute", seen(error=Unavailable())),
    (
        "role",
        "problem",
        "Customer: to continue the access",
        seen(error=Refused(), ended="It ended."),
    ),
    ("role", "problem", "Vendor or customer: verify", seen(error=Refused(), accepts_another=True)),
    ("role", "problem", "Customer: The role can't be assumed", seen(error=Refused())),
    ("role", "problem", "Vendor or customer: verify", seen(recreated=True)),
    ("session_duration", "problem", "Customer: set the role's maximum", seen(USER, view=READ)),
    ("session_duration", "unknown", "Vendor or customer: verify", seen(USER)),
    ("region", "problem", "Customer: enable the region", seen(error=OFF)),
    ("mfa", "unknown", "Customer: remove aws:MultiFactorAuthPresent", seen(error=Refused())),
    (
        "organization",
        "unknown",
        "Customer: ask the organisation's administrator",
        seen(error=Refused()),
    ),
    (
        "organization",
        "problem",
        "Customer: ask the organisation's administrator",
        lacking("organization"),
    ),
    (
        "permissions_boundary",
        "problem",
        "Customer: add it to the permissions boundary",
        lacking("boundary"),
    ),
    ("permissions", "problem", "Customer: update the stack", lacking("not_granted")),
    ("permissions", "problem", "Customer: update the stack", lacking("denied")),
    ("permissions", "unknown", "Vendor or customer: verify", seen()),
    ("permissions", "unknown", "Customer: allow it", seen(view=UNREAD)),
    ("permissions", "unknown", "Vendor or customer: diagnose", seen(view=SILENT)),
]


@pytest.mark.parametrize(("name", "outcome", "fix", "what"), CASES)
def test_a_fix_says_for_whom_it_is_and_each_problem_has_one(
    name: str, outcome: str, fix: str, what: Evidence
):
    found = next(step for step in steps(what) if step.name == name)
    assert found.outcome == outcome
    assert found.fix.startswith(fix), found
    for step in (*steps(what), *for_the_tenant(steps(what))):
        assert step.fix is None or step.fix.startswith(
            ("Vendor: ", "Customer: ", "Vendor or customer: ")
        ), step
        needed = step.outcome == "problem" or (step.outcome == "unknown" and step.name != "role")
        assert (step.fix is not None) == needed, step
    if name == "session_duration" and outcome == "problem":
        assert "Vendor: or ask for less." in found.fix
    if name == "our_credentials":
        [own, *_] = for_the_tenant(steps(what))
        assert own.name == "vendor"
        assert own.fix.startswith("Customer: ")
        assert "tell the vendor" in own.fix
