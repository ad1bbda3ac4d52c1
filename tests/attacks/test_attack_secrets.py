"""Where secrets and AWS's words must not be: the database, the log, errors, the audit log,
documents and caches.
"""

import logging
import re

from sqlalchemy import MetaData, select

from tests.attacks.evidence import problem
from tests.support.cast import path_of


def everything_stored(app):
    engine, meta = app.extensions["deputy"].db.engine, MetaData()
    meta.reflect(engine)
    with engine.connect() as connection:
        return "\n".join(
            str([bytes(value) if isinstance(value, memoryview) else value for value in row])
            for table in meta.sorted_tables
            for row in connection.execute(select(table))
        )


def test_credentials_and_keys_are_never_stored_or_logged(world, app, caplog):
    made = world.connection()
    worker = world.worker({"id": made["tenant_id"]})
    with caplog.at_level(logging.DEBUG):
        process = worker("POST", path_of(made, "/credentials"), {"reason": "a test"})
        container = worker("GET", path_of(made, "/container-credentials"))
        for body in ({"duration_seconds": 1}, {"session_policy": {"Statement": "x"}}):
            worker("POST", path_of(made, "/credentials"), body, expect=422)
    secrets = [process["SecretAccessKey"], process["SessionToken"], container["SecretAccessKey"]]
    secrets += [container["Token"], worker.key[21:], world.admin.key[21:]]
    stored = everything_stored(app)
    logged = caplog.text + str([record.__dict__ for record in caplog.records])
    assert [secret for secret in secrets if secret in stored + logged] == []
    assert process["AccessKeyId"] in stored  # which one it was, and no more
    assert path_of(made) not in logged  # routes, never paths


def test_no_answer_may_be_kept_by_a_cache(scene):
    for method, what in (("POST", "/credentials"), ("GET", "/container-credentials"), ("GET", "")):
        response = scene.mallory.raw(method, path_of(scene.ours, what))
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert not {"ETag", "Last-Modified", "Expires", "Set-Cookie", "Age"} & set(
            response.headers.keys()
        )


def test_no_browser_page_may_read_an_answer(scene):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        response = scene.mallory.raw(
            method, path_of(scene.ours, "/container-credentials"), headers=headers
        )
        assert not [name for name in dict(response.headers) if name.startswith("Access-Control")]
        assert response.headers["X-Content-Type-Options"] == "nosniff"


# They stand in AWS's own documents, and in ours as what an answer looks like.
AWS_EXAMPLES = ("ASIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_the_documents_hold_no_secret_and_nothing_of_a_tenant(scene):
    anonymous = scene.mallory.with_key(None)
    for path in ("/openapi.json", "/v1/templates/customer-role.yaml", "/healthz", "/readyz"):
        response = anonymous.raw("GET", path)
        assert response.status_code == 200
        assert not scene.tells_of_globex(response.text)
        text = response.text
        for example in AWS_EXAMPLES:
            text = text.replace(example, "")
        assert not re.search("ASIA|AKIA|wJalrXUtnFEMI|dpk_0", text)


def test_a_bug_of_ours_says_nothing_and_is_no_trace_of_success(scene, monkeypatch):
    """Nothing real fails in an unforeseen way, so one thing is made to."""

    def bug(*_args, **_kwargs):
        raise RuntimeError(
            f"secret {scene.mallory.key} at arn:aws:sts::111122223333:assumed-role/DeputyBroker/x"
        )

    monkeypatch.setattr("app.issuing.issue.session_name", bug)
    calls = len(scene.world.calls_for(scene.ours["role_arn"]))
    body = {"duration_seconds": 1111}  # or a session may be there already
    response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), body)
    found = problem(response, 500, "internal_error")
    assert "errors" not in found
    assert len(scene.world.calls_for(scene.ours["role_arn"])) == calls
