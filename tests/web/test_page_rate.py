"""How often a link's page may be looked at: ten times a second, and others' pages are their own."""

from urllib.parse import urlsplit

from app.limits.rates import PAGE_RATE, Limit


def test_a_link_that_is_opened_too_often_is_told_when_to_come_back(world, app, monkeypatch):
    tenant = world.tenant()
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)["url"]
    other = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)["url"]
    token, others = (urlsplit(url).path for url in (link, other))
    rates = app.extensions["deputy"].rates
    monkeypatch.setattr(rates, "_page", Limit("page", PAGE_RATE, 1, rates._page.refusal))
    assert PAGE_RATE == 10
    monkeypatch.setattr("app.limits.rates.time.monotonic", lambda: 1_000_000.5)
    client = app.test_client()
    looks = [client.get(token), client.get(f"{token}/status"), client.get(f"{token}/connections")] + [
        client.get(token) for _ in range(7)
    ]
    assert {response.status_code for response in looks} <= {200, 303}
    for path in (token, f"{token}/status", f"{token}/connections"):
        refused = client.get(path)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 2
        assert "Too many requests for this page" in refused.text
        assert refused.content_type.startswith("text/html")
    assert client.get(others).status_code == 200
    assert client.post(f"{token}/connections", data={"role_arn": "x"}).status_code == 422


def test_a_form_of_more_than_an_arn_needs_is_not_read(world, app):
    tenant = world.tenant()
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)["url"]
    client, path = app.test_client(), f"{urlsplit(link).path}/connections"
    form = "application/x-www-form-urlencoded"
    assert client.post(path, data=b"a=1&" * 5000, content_type=form).status_code == 413
    assert client.post(path, data=b"a=1&" * 2000, content_type=form).status_code == 422
