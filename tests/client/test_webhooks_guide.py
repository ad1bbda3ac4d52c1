"""The receiver in docs/webhooks.md gets what Deputy sends."""

import re
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from werkzeug.serving import make_server

from app.audit import actions
from app.store.database import SYSTEM
from tests.support.cast import OPERATOR
from tests.support.own_services import own_services
from tests.webhooks.conftest import LOCAL, deliver

GUIDE = Path(__file__).parents[2] / "docs" / "webhooks.md"
DETAILS = {"was": "pending", "status": "verified", "version": 3, "verdict": "proven", "checks": {}}


@pytest.fixture
def guide():
    """Serve the guide's receiver: its variables, and its URL."""
    [source] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "guide", "is_new": lambda _: True}
    exec(source, names)  # noqa: S102  what readers copy
    server = make_server("127.0.0.1", 0, names["app"], threaded=True)
    threading.Thread(target=server.serve_forever).start()
    yield names, f"http://127.0.0.1:{server.server_port}/webhooks/deputy"
    server.shutdown()
    server.server_close()


def test_the_guides_receiver_starts_work_for_deputys_events_alone(guide):
    names, url = guide
    started = []
    names["start_work"] = lambda *ids: started.append(ids)
    with own_services(webhook_allowed_networks=LOCAL) as services:
        tenant = services.tenants.create(OPERATOR, name="Acme", reference="customer-4711")
        endpoint, names["SECRET"] = services.endpoints.create(OPERATOR, url=url, types=["*"])
        connection_id = uuid4()
        _verify(services, tenant, connection_id)
        assert all(outcome.is_success for outcome in deliver(services))
        assert started == [("customer-4711", str(connection_id))]
        services.endpoints.rotate_secret(OPERATOR, endpoint.id, grace_seconds=0)
        _verify(services, tenant, uuid4())
        assert [outcome.is_success for outcome in deliver(services)] == [False]
        assert len(started) == 1


def _verify(services, tenant, connection_id):
    with services.db.write(SYSTEM) as db:
        actions.CONNECTION_VERIFIED.record(
            db, OPERATOR.actor, DETAILS, tenant.id, connection_id=connection_id
        )
