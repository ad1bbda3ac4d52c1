"""An example product: it lists the S3 buckets in its customers' AWS accounts.

docs/integrate.md explains it part by part. `make example` starts it beside Deputy and a local AWS.
"""

import os
import secrets
import uuid
from typing import Any

import deputy_client
import requests
from botocore.exceptions import BotoCoreError, ClientError
from deputy_client.webhooks import VerificationError, verify
from flask import Flask, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

DEPUTY_URL = os.environ["DEPUTY_URL"]
# Signs customers up, and makes each one's worker key. It can't end a tenant, or reach older ones.
SIGN_UP_KEY = os.environ["DEPUTY_API_KEY"]
# Deletes any tenant, so a real product keeps it in another program
OFFBOARDING_KEY = os.environ["OFFBOARDING_KEY"]
WEBHOOK_SECRET = os.environ["WEBHOOK_SECRET"]
PRODUCT_URL = os.environ["PRODUCT_URL"]

app = Flask(__name__)
app.secret_key = os.environ.get("SESSION_SECRET") or secrets.token_bytes(32)
# Browsers must not send the session's cookie with another site's form
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
# Customers by their reference. A real product has a database.
customers: dict[str, dict[str, Any]] = {}
handled: set[str] = set()  # ids of webhooks: each may come more than once


def deputy(
    method: str, path: str, body: Any = None, *, key: str = SIGN_UP_KEY, once: str = ""
) -> Any:
    """Send a request to Deputy. `once`: an idempotency key, for safe retries."""
    headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": once} if once else {})
    url = f"{DEPUTY_URL}/v1{path}"
    answer = requests.request(method, url, json=body, headers=headers, timeout=30)
    if method != "DELETE" or answer.status_code != 404:  # 404: it is deleted already
        answer.raise_for_status()
    return answer.json() if answer.content else None


@app.errorhandler(requests.RequestException)
def no_answer(_error: requests.RequestException) -> ResponseReturnValue:
    return page(message="That did not work. Try again in a moment."), 502


@app.get("/")
def home() -> str:
    reference = session.setdefault("reference", str(uuid.uuid4()))  # who signs up here
    if customer := customers.get(reference):
        # Read it again: a rotation replaces the External ID
        customer["tenant"] = deputy("GET", f"/tenants/{customer['tenant']['id']}")
    return page()


def page(**words: Any) -> str:
    customer = customers.get(session.get("reference", ""))
    return render_template("page.html", customer=customer, **words)


def signed_up() -> dict[str, Any]:
    return customers.get(session.get("reference", "")) or abort(redirect(url_for("home"), 303))


@app.get("/support")
@app.get("/privacy")
def about() -> str:
    return page(message="Deputy's page links here, as VENDOR_URL, SUPPORT_URL and PRIVACY_URL say.")


# A customer signs up: it becomes a tenant, with an External ID and a worker key of its own.


@app.post("/sign-up")
def sign_up() -> ResponseReturnValue:
    reference, name = session.get("reference"), request.form["name"].strip()[:200]
    if reference and name and reference not in customers:
        tenant = deputy("POST", "/tenants", {"name": name, "reference": reference}, once=reference)
        worker = {"name": name, "scopes": ["credentials:issue"], "tenant_id": tenant["id"]}
        key = deputy("POST", "/api-keys", worker)["key"]
        customers[reference] = {"name": name, "tenant": tenant, "key": key, "connections": {}}
    return redirect(url_for("home"), 303)


# The customer connects an AWS account: on Deputy's page, which leads back here.


@app.post("/connect")
def connect() -> ResponseReturnValue:
    tenant_id = signed_up()["tenant"]["id"]
    body = {"return_url": f"{PRODUCT_URL}/connected", "expires_in": 3600}
    link = deputy("POST", f"/tenants/{tenant_id}/onboarding-links", body)
    return redirect(link["url"], 303)


@app.get("/connected")
def connected() -> str:
    # Anybody can open this address, so it proves nothing. The webhook says what is connected.
    return page(message="Welcome back.")


# Deputy says that something changed.


@app.post("/webhooks/deputy")
def receive() -> ResponseReturnValue:
    try:
        event = verify(WEBHOOK_SECRET, request.headers, request.get_data())
    except VerificationError:
        return "", 400
    data = event["data"]
    customer = customers.get(data.get("tenant_reference") or "")
    if customer and data.get("connection_id") and request.headers["webhook-id"] not in handled:
        # Events may come in any order, so ask for the connection as it is now
        path = f"/tenants/{data['tenant_id']}/connections?limit=200"
        listed = deputy("GET", path)["items"]
        customer["connections"] = {connection["id"]: connection for connection in listed}
    handled.add(request.headers["webhook-id"])
    return "", 204


# The product works in the customer's account.


@app.post("/job")
def job() -> ResponseReturnValue:
    customer, buckets = signed_up(), {}
    for connection_id, connection in customer["connections"].items():
        try:
            tenant_id, key = customer["tenant"]["id"], customer["key"]
            aws = deputy_client.session(tenant_id, connection_id, key=key, region_name="us-east-1")
            names = [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]]
        except (deputy_client.DeputyError, ClientError, BotoCoreError) as error:
            app.logger.warning("no access to %s: %s", connection["account_id"], error)
            names = ["no access at the moment"]
        buckets[connection["account_id"]] = names
    return page(buckets=buckets)


# The customer leaves: no credentials are issued from this answer on.


@app.post("/leave")
def leave() -> ResponseReturnValue:
    customer = signed_up()
    deputy("DELETE", f"/tenants/{customer['tenant']['id']}", key=OFFBOARDING_KEY)
    del customers[session.pop("reference")]
    return page(message=f"{customer['name']} has left. You can delete the stack in AWS now.")
