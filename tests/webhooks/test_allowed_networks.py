"""The networks that the vendor opens for webhooks: only endpoints of its own may be in them."""

import pytest

from app.errors import ValidationFailedError
from tests.support.cast import OPERATOR
from tests.webhooks.conftest import deliver, endpoint_of, key_principal
from tests.webhooks.test_delivery import tenants


def test_a_tenants_key_neither_makes_nor_moves_an_endpoint_there(services, receiver):
    [tenant] = tenants(services, "Acme")
    key = key_principal(services, tenant.id)
    with pytest.raises(ValidationFailedError):
        services.endpoints.create(key, url=receiver.url(), types=["*"])
    vendors, _ = endpoint_of(services, receiver, tenant_id=tenant.id)
    with pytest.raises(ValidationFailedError):
        services.endpoints.change(key, vendors.id, {"url": receiver.url("/admin")})


def test_the_vendor_moves_no_endpoint_there_that_a_tenants_key_made(services, receiver):
    """The tenant knows its secret."""
    [tenant] = tenants(services, "Acme")
    key = key_principal(services, tenant.id)
    endpoint, _ = services.endpoints.create(key, url="https://93.184.215.14/", types=["*"])
    with pytest.raises(ValidationFailedError):
        services.endpoints.change(OPERATOR, endpoint.id, {"url": receiver.url()})


def test_an_endpoint_that_a_tenants_key_changed_gets_nothing_there(services, receiver):
    [tenant] = tenants(services, "Acme")
    endpoint, _ = endpoint_of(services, receiver, tenant_id=tenant.id)
    key = key_principal(services, tenant.id)
    services.endpoints.change(key, endpoint.id, {"description": "mine"})
    assert {outcome.error for outcome in deliver(services)} == {"address"}
    assert receiver.tried == []
