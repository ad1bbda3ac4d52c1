"""The log: one JSON object a line, joined by the request's id, and never a secret in it."""

import io
import json
import logging
import sys
from datetime import UTC, datetime

import pytest
import structlog

from app import log
from app.aws.sts import Session
from app.factory import create_app
from tests.conftest import make_config
from tests.support.databases import NOWHERE

API_KEY = "dpk_0123456789abcdef_Abcdefghij0123456789_-ABCDEFGHIJ0123456789x"
LINK_TOKEN = "Lk9" + "aB-_5" * 8
TOKEN = "IQoJb3JpZ2luX2VjEJr" + "b/+9" * 40
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = Session(
    "ASIAEXAMPLE", SECRET, TOKEN, datetime(2030, 1, 1, tzinfo=UTC), "444455556666", "AROAX", "me"
)


class Lines:
    """What was logged, line by line, parsed."""

    def __init__(self, stream):
        self._stream = stream

    @property
    def text(self):
        return self._stream.getvalue()

    @property
    def all(self):
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def one(self):
        [line] = self.all
        return line


@pytest.fixture
def lines(monkeypatch):
    """The process's log, configured as the service does it; put back as it was at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.contextvars.clear_contextvars()  # a request of another test's leaves its id
    noisy = {name: logging.getLogger(name).level for name in log._NOISY}
    with monkeypatch.context() as patch:
        stream = io.StringIO()
        patch.setattr(sys, "stderr", stream)
        log.configure("INFO")
    yield Lines(stream)
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)


def test_a_line_is_one_json_object_with_time_level_and_place(lines):
    log.logger.info("connection.verified", tenant_id="t-1", ms=3.5, text="two\nlines")
    line = lines.one
    at = datetime.fromisoformat(line.pop("at"))
    assert at.utcoffset().total_seconds() == 0
    assert abs((datetime.now(UTC) - at).total_seconds()) < 10
    assert line == {
        "event": "connection.verified",
        "level": "info",
        "logger": __name__,  # the module that made the line
        "tenant_id": "t-1",
        "ms": 3.5,
        "text": "two\nlines",
    }


def test_libraries_log_the_same_way(lines):
    logging.getLogger("some.library").warning("%s is %d", "answer", 42)
    expected = {"event": "answer is 42", "level": "warning", "logger": "some.library"}
    assert lines.one == expected | {"at": lines.one["at"]}


def test_the_level_holds_for_all_and_at_debug_botocore_still_prints_no_requests(lines):
    log.logger.debug("quiet")
    logging.getLogger("library").debug("quiet")
    logging.getLogger().setLevel("DEBUG")
    for name in ("botocore.endpoint", "urllib3.connectionpool", "boto3.resources"):
        logging.getLogger(name).info("requests, signatures and answers")
    assert lines.all == []


def test_the_request_id_is_on_every_line_of_the_request(lines):
    structlog.contextvars.bind_contextvars(request_id="r-1")
    log.logger.info("ours")
    logging.getLogger("library").error("theirs")
    assert [line["request_id"] for line in lines.all] == ["r-1", "r-1"]
    structlog.contextvars.clear_contextvars()
    log.logger.info("later")
    assert "request_id" not in lines.all[-1]


def test_a_request_is_logged_by_its_route_and_answered_id(lines, monkeypatch):
    stream = lines._stream
    monkeypatch.setattr(sys, "stderr", stream)
    app = create_app(make_config(NOWHERE))
    assert app.blueprints.keys() >= log._QUIET_BLUEPRINTS
    assert app.view_functions.keys() >= log._QUIET_ENDPOINTS
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    tenant = "01890a5d-ac96-774b-bcce-b302099a8057"
    headers = {"X-Request-Id": "mine"}
    first = client.get(f"/v1/tenants/{tenant}?reference={API_KEY}", headers=headers)
    second = client.get(f"/v1/tenants/{tenant}")
    ids = [first.headers["X-Request-Id"], second.headers["X-Request-Id"]]
    requests = [line for line in lines.all if line["event"] == "request"]
    assert [line["request_id"] for line in requests] == ids
    assert len({"mine", *ids}) == 3
    assert requests[0]["route"] == "/v1/tenants/<uuid:tenant_id>"
    assert requests[0]["status"] == 401
    assert tenant not in lines.text
    assert "reference" not in lines.text


# --- the second net ---


OTHER_FORM = "a token of another shape"
SECRET_FACTS = [
    *({name: OTHER_FORM} for name in ("SessionToken", "session_token", "token", "password")),
    {API_KEY: 1},
    {"detail": f"the key {API_KEY} was used"},
    {"detail": f"SessionToken={TOKEN}"},
    {"detail": f"<SecretAccessKey>{SECRET}</SecretAccessKey>"},
    {"detail": json.dumps({"SecretAccessKey": SECRET, "SessionToken": TOKEN})},
    {"detail": str({"secret_access_key": SECRET})},
    {"detail": f"aws_secret_access_key={SECRET}"},
    {"answer": [{"deep": ({"secret_access_key": SECRET, "SessionToken": TOKEN},)}]},
    {"headers": {"authorization": f"Bearer {OTHER_FORM}"}},
    {"headers": [("X-Key", API_KEY)]},
    {"seen": {API_KEY}},
    {"by_key": {API_KEY: 1}},
    {"raw": API_KEY.encode()},
    {"session": SESSION},
    {"errors": [ValueError(f"bad key {API_KEY}")]},
    {"path": f"/onboard/{LINK_TOKEN}/status"},
]


def test_a_secret_is_scrubbed_from_what_is_logged(lines):
    for facts in SECRET_FACTS:
        log.logger.warning("something", **facts)
        assert lines.all[-1]["event"] == "something"
        assert_no_secret(lines.text)
    assert len(lines.all) == len(SECRET_FACTS)


def assert_no_secret(text):
    for secret in (API_KEY, LINK_TOKEN, TOKEN, SECRET, "of another shape"):
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text


def test_a_secret_is_scrubbed_from_events_and_library_lines(lines):
    for secret in (API_KEY, f"SecretAccessKey: '{SECRET}'", f"token {TOKEN}"):
        log.logger.warning(f"it said {secret}")
        logging.getLogger("library").warning("it said %s", secret)
        logging.getLogger("library").warning({"said": secret})
    assert len(lines.all) == 9
    assert_no_secret(lines.text)


def test_a_secret_is_scrubbed_from_tracebacks(lines):
    inner = KeyError(API_KEY)
    outer = RuntimeError(f"{{'SecretAccessKey': '{SECRET}'}}")
    outer.__cause__ = inner
    for logger in (log.logger, logging.getLogger("library")):
        logger.error("failed", exc_info=outer)
    for line in lines.all:
        assert "RuntimeError" in line["exception"]
        assert "KeyError" in line["exception"]
    assert len(lines.all) == 2
    assert_no_secret(lines.text)


def test_gunicorns_own_lines_hold_no_links_token(lines):
    """It names the path of a request that it could not finish, and writes past our handler."""
    logger, stream = logging.getLogger("gunicorn.error"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.error("Error handling request %s", f"/onboard/{LINK_TOKEN}")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "Error handling request /onboard/[redacted]\n"


def test_what_is_no_secret_stays_readable(lines):
    facts = {"access_key_id": "ASIAEXAMPLE", "api_key_id": "01890a5d"}
    facts["external_id"] = "dpy-" + "0f" * 32
    log.logger.info("credentials.issued", **facts)
    assert lines.one.items() >= facts.items()


def test_what_carries_secrets_does_not_show_them():
    assert_no_secret(repr(SESSION) + str(SESSION))
    config = make_config("postgresql+psycopg://u:hunter2@h/d", bootstrap_key=API_KEY)
    shown = repr(config) + str(config)
    assert_no_secret(shown)
    assert "hunter2" not in shown
    assert not any(key in shown for key in config.database.secret_keys)
