"""Each advice of a diagnosis begins with who can follow it: the vendor, the customer, or either."""

import pytest
import yaml

from app.aws.errors import Misconfigured, Refused, Unavailable
from app.aws.role_view import RoleSettings, RoleView
from app.diagnosis.role_rights import Gap
from app.diagnosis.steps import Evidence, steps
from app.diagnosis.visibility import for_the_tenant, without_other_tenants
from app.health.checks import failed, warning
from app.ids import Broker, new_external_id
from app.proofs.canary import Sight
from tests.conftest import make_config
from tests.support.databases import NOWHERE

CONFIG = make_config(NOWHERE)
USER = make_config(
    NOWHERE,
    broker=Broker.parse("arn:aws:iam::111122223333:user/Broker"),
    max_session_seconds=43_200,
)
OFF = Misconfigured("The account has switched STS off in the region that Deputy works from.")
READ = RoleView(RoleSettings({}, 3600, "arn:aws:iam::444455556666:policy/Boundary"), Refused(), {})
LONG = READ._replace(settings=READ.settings._replace(max_seconds=43_200))
UNREAD = RoleView(Refused(), Refused(), Refused())
SILENT = RoleView(Unavailable(), Unavailable(), Unavailable())


WHOLE = {
    "unavailable": Unavailable(),
    "refused": Refused(),
    "off": OFF,
    "read": READ,
    "unread": UNREAD,
    "silent": SILENT,
    "blind": (Sight.BLIND, failed("It refuses.", "mend the policy")),
    "lost": (Sight.LOST, warning("It is gone.", "make it again")),
}
CASES = yaml.safe_load("""
- [our_credentials, unknown, "Vendor: look at the network", {identity: unavailable}]
- [our_credentials, problem, "Vendor: look at this process's task role", {identity: null}]
- [our_identity, problem, "Vendor: run this process as the broker", {identity: false}]
- [canary, problem, "Vendor: mend the policy", {canary: blind}]
- [canary, unknown, "Vendor: make it again", {canary: lost}]
- [aws_lets_us_try, problem, "Vendor: compare DEPUTY_ROLE_PREFIX", {not_allowed: Its name.}]
- [aws_lets_us_try, unknown, "Vendor: try again in a minute", {error: unavailable}]
- [role, problem, "Customer: to continue the access", {error: refused, ended: It ended.}]
- [role, problem, "Vendor or customer: verify", {error: refused, accepts_another: true}]
- [role, problem, "Customer: The role can't be assumed", {error: refused}]
- [role, problem, "Vendor or customer: verify", {recreated: true}]
- [session_duration, problem, "Customer: set the role's maximum", {broker: user, view: read}]
- [session_duration, unknown, "Vendor or customer: verify", {broker: user}]
- [session_duration, unknown, "Customer: allow it", {broker: user, view: unread}]
- [region, problem, "Customer: enable the region", {error: "off"}]
- [mfa, unknown, "Customer: remove aws:MultiFactorAuthPresent", {error: refused}]
- [organization, unknown, "Customer: ask the organisation's administrator", {error: refused}]
- [organization, problem, "Customer: ask the organisation's administrator", {lacks: organization}]
- [permissions_boundary, problem, "Customer: add it to the permissions bound", {lacks: boundary}]
- [permissions, problem, "Customer: update the stack", {lacks: not_granted}]
- [permissions, problem, "Customer: update the stack", {lacks: denied}]
- [permissions, unknown, "Vendor or customer: verify", {}]
- [permissions, unknown, "Customer: allow it", {view: unread}]
- [permissions, unknown, "Vendor or customer: diagnose", {view: silent}]
""")


def evidence(broker="role", lacks=None, **parts):
    values = {
        name: WHOLE.get(value, value) if isinstance(value, str) else value
        for name, value in ({"identity": True} | parts).items()
    }
    if lacks:
        values |= {"view": READ, "gaps": (Gap("s3:ListBucket", "*", lacks),)}
    return Evidence(USER if broker == "user" else CONFIG, **values)


@pytest.mark.parametrize(("name", "outcome", "fix", "parts"), CASES)
def test_a_fix_says_for_whom_it_is_and_each_problem_has_one(name, outcome, fix, parts):
    what = evidence(**parts)
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
        assert "3600 s at most" in found.detail
        assert found.fix.endswith("duration to 43200 s. Vendor: or ask for less.")
        long = evidence(**parts | {"view": LONG})
        assert next(step for step in steps(long) if step.name == name).outcome == "ok"
    if name == "our_credentials":
        [own, *_] = for_the_tenant(steps(what))
        assert own.name == "vendor"
        assert own.fix.startswith("Customer: ")
        assert "tell the vendor" in own.fix


def test_another_tenants_external_id_is_hidden_in_any_case_of_its_letters():
    own, other, hidden = new_external_id(), new_external_id(), "(not this tenant's)"
    trust = {"Condition": [own, own.upper(), other, other.upper(), f"x{other.title()}x"]}
    shown = without_other_tenants(trust, {own})
    assert shown == {"Condition": [own, own.upper(), hidden, hidden, f"x{hidden}x"]}
