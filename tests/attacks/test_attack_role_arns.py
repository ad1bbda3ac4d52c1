"""What may never be assumed, or is no role at all, is refused before AWS hears of it."""

from app.factory import create_app
from tests.attacks.evidence import case, issues_nothing, problem, refusals, unchanged, untouched
from tests.conftest import with_settings
from tests.support.cast import Api, path_of

_ROLE = "arn:aws:iam::444455556666:role/"

NOT_A_ROLE = {
    "user": "arn:aws:iam::444455556666:user/deputy-x",
    "root": "arn:aws:iam::444455556666:root",
    "oidc provider": "arn:aws:iam::444455556666:oidc-provider/deputy-x.example",
    "assumed role": "arn:aws:sts::444455556666:assumed-role/deputy-x/session",
    "bucket": "arn:aws:s3:::deputy-x-444455556666",
    "one full-width digit": "arn:aws:iam::44445555666\uff16:role/deputy-x",
    "newline at the end": f"{_ROLE}deputy-x\n",
    "Kelvin sign": f"{_ROLE}deputy-\u212a",
    "wildcard name": f"{_ROLE}deputy-*",
    "2,049 characters": f"{_ROLE}{'p' * 2000}/deputy-x".ljust(2049, "x"),
    "two ARNs": f"{_ROLE}deputy-x {_ROLE}deputy-y",
}


NOT_ALLOWED = {
    "the broker itself": "arn:aws:iam::111122223333:role/DeputyBroker",
    "a role beside the broker": "arn:aws:iam::111122223333:role/deputy-x",
    "a role beside the broker, with a path": "arn:aws:iam::111122223333:role/a/b/deputy-x",
    "a role in another account of the vendor's": "arn:aws:iam::999988887777:role/deputy-x",
    "China": "arn:aws-cn:iam::444455556666:role/deputy-x",
    "GovCloud": "arn:aws-us-gov:iam::444455556666:role/deputy-x",
    "no partition that there is": "arn:aws-fake:iam::444455556666:role/deputy-x",
    "the vendor's account in another partition": "arn:aws-cn:iam::111122223333:role/deputy-x",
    "service-linked": f"{_ROLE}aws-service-role/ecs.amazonaws.com/deputy-x",
    "Identity Center": f"{_ROLE}aws-reserved/sso.amazonaws.com/eu-west-1/deputy-x",
    "another prefix": f"{_ROLE}admin",
    "the prefix in the path": f"{_ROLE}deputy-x/admin",
    "the prefix in another case": f"{_ROLE}Deputy-x",
}


def refused_before_aws(scene, role_arns, code):
    calls, responses = len(scene.world.aws.sts_calls), []
    path = f"/v1/tenants/{scene.acme['id']}/connections"
    with untouched(scene.world, scene.ours):
        for name, role_arn in role_arns.items():
            with case(name):
                response = scene.admin.raw("POST", path, {"role_arn": role_arn})
                assert set(problem(response, 422, code)["errors"]) == {"role_arn"}
                assert role_arn not in response.text
                assert "999988887777" not in response.text  # nor which accounts are the vendor's
                responses.append(response)
    for event in refusals(scene.world, *responses):
        assert event["action"] == "connection.refused"
        assert (event["details"]["code"], event["details"]["fields"]) == (code, ["role_arn"])
    assert len(scene.world.aws.sts_calls) == calls


def test_what_is_not_the_arn_of_a_role_is_refused_before_aws(scene):
    refused_before_aws(scene, NOT_A_ROLE, "validation_failed")


def test_what_is_never_assumed_is_refused_before_aws(scene):
    refused_before_aws(scene, NOT_ALLOWED, "role_not_allowed")


def test_a_role_is_refused_alike_under_a_tenant_that_is_not_ones_own(scene):
    """Which roles are allowed is settled before anything is looked up, so the answer tells
    nothing of the tenant.
    """
    for arn in ("arn:aws:iam::111122223333:role/deputy-x", "not an ARN but long enough"):
        answers = [
            scene.mallory.raw("POST", f"/v1/tenants/{tenant}/connections", {"role_arn": arn})
            for tenant in (scene.globex["id"], scene.acme["id"])
        ]
        bodies = [{**answer.get_json(), "request_id": None} for answer in answers]
        assert bodies[0] == bodies[1]
        assert answers[0].status_code == 422


def test_a_connections_role_never_changes(scene):
    new = {"role_arn": f"{_ROLE}deputy-evil"}
    with unchanged(scene.world, scene.ours):
        for api in (scene.mallory, scene.admin):
            problem(api.raw("PUT", path_of(scene.ours), new), 405, "method_not_allowed")
            problem(api.raw("PATCH", path_of(scene.ours), new), 422, "validation_failed")


def test_another_spelling_of_a_proven_role_proves_nothing(world):
    """IAM's names are unique without regard to case, but STS compares the case: at most one
    spelling works.
    """
    made = world.connection()
    tenant = {"id": made["tenant_id"]}
    head, _, name = made["role_arn"].rpartition("deputy-")
    for spelling in (f"{head}deputy-{name.upper()}x", f"{head}path/deputy-{name}"):
        other = world.connect(tenant, spelling, status="pending")
        issues_nothing(world.admin, other)


def test_a_role_in_an_account_that_became_the_vendors_own_is_called_no_more(world, config):
    made = world.connection()
    own = frozenset({made["account_id"]})
    app = create_app(with_settings(config, vendor_account_ids=own))
    admin, calls = Api(app, world.admin.key), len(world.calls_for(made["role_arn"]))
    issue = path_of(made, "/credentials")
    admin.refused("POST", issue, expect=409, code="connection_not_verified")
    found = admin("POST", path_of(made, "/verify"))
    assert (found["status"], found["issues"]) == ("broken", False)
    assert "vendor's own accounts" in found["verification"]["checks"][0]["detail"]
    for step in ("suspend", "resume"):
        admin("POST", path_of(made, f"/{step}"), {"reason": "x"})
    admin.refused("POST", issue, expect=409, code="connection_not_verified")
    assert len(world.calls_for(made["role_arn"])) == calls
    app.extensions["deputy"].db.engine.dispose()
