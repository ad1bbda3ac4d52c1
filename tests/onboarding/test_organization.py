"""An organisation, from one stack in its management account: every account registers by itself and
is proven, within the STS budget; one that joins later as well; and when the stack is deleted, none
of them is proven any longer.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
import sqlalchemy
from flask import Flask

from app.background.worker import run_worker
from app.clock import now
from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Connection
from bench.organization import most_in_a_second
from sandbox.organization import organization
from sandbox.vendor import VENDOR_ACCOUNT
from tests.background.test_workers import WorkerProcess, lapse
from tests.conftest import OPERATOR, make_config, publish_templates
from tests.support.cast import Api, Customer, World, root_client
from tests.support.databases import new_database
from tests.support.waiting import until

UNIT = "ou-abcd-00000020"
ACCOUNTS = [f"3{number:011}" for number in range(3)]
NEWCOMER = "399999999999"
BUDGET = 15  # more calls are made at once
PATIENCE = 300  # seconds, on a machine that stalls
SHOWN_AGAIN = 10  # seconds after which SQS delivers what was not deleted; a minute in broker.yaml


@contextlib.contextmanager
def deployed(url, vendor, **settings):
    """A deployment with a registration topic, and nobody at work."""
    topics = {"registration_topic_arns": (vendor.registration_topic_arn,)}
    queue = vendor.registration_queue_url
    app = create_app(make_config(url, registration_queue_url=queue, **topics | settings))
    yield app
    app.extensions["deputy"].db.engine.dispose()


@contextlib.contextmanager
def working(app):
    """A background worker of it is at work."""
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(app.extensions["deputy"], stop))
    worker.start()
    yield
    stop.set()
    worker.join(30)


@pytest.fixture
def idle(request, aws, vendor):
    # Proven every two seconds, and as soon after a refusal
    settings = {"sts_budget": BUDGET, "reprove_every": 2}
    with new_database() as url, deployed(url, vendor, **settings) as app:
        publish_templates(app)
        yield app


@pytest.fixture
def app(idle) -> Iterator[Flask]:
    with working(idle):
        yield idle


class Organisation:
    """The customer: a tenant, and its management account with the stack that the kit's link
    opens.
    """

    def __init__(self, app, aws):
        self.aws, self.services = aws, app.extensions["deputy"]
        _, key = self.services.api_keys.create_key(OPERATOR, name="tests", scopes=ALL_SCOPES)
        self.world = World(aws, Api(app, key))
        self.tenant = self.world.tenant("An organisation")
        self.path = f"/v1/tenants/{self.tenant['id']}/connections"
        self.account = Customer(aws).account
        self.cloudformation = root_client(aws, "cloudformation", self.account)

    def has(self, *accounts):
        organization.change({"ous": {UNIT: list(accounts)}})

    def launch(self, call_as="SELF", **more):
        link = self.world.kit(self.tenant)["organization_launch_url"]
        given = {"OrganizationalUnitIds": UNIT, "CallAs": call_as, **more}
        name = Customer(self.aws, self.account).create_stack(link, **given)
        self.stack_id = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackId"]

    def stack_is(self, status):
        stacks = self.cloudformation.describe_stacks(StackName=self.stack_id)["Stacks"]
        return stacks[0]["StackStatus"] == status

    def await_stack(self, status):
        until(lambda: self.stack_is(status), seconds=PATIENCE)

    def instances(self):
        """Each account's stack. CURRENT is one that was created, so its registration was
        answered SUCCESS.
        """
        found = self.cloudformation.list_stack_instances(StackSetName=self.stack_id.split("/")[1])
        return {instance["Account"]: instance["Status"] for instance in found["Summaries"]}

    def summary(self):
        found = self.world.admin("GET", f"{self.path}/summary")
        return {name: found[name] for name in ("total", "by_status")}

    def accounts(self, status):
        items = self.world.admin("GET", f"{self.path}?limit=200&status={status}")["items"]
        return Counter(item["account_id"] for item in items)

    def audited(self, action):
        """How often that happened to each account."""
        with self.services.db.read() as db:
            query = sqlalchemy.select(Connection.account_id).join(
                AuditEvent, AuditEvent.connection_id == Connection.id
            )
            return Counter(db.scalars(query.where(AuditEvent.action == action)))

    def statuses(self):
        """How many connections have which, for who asks again and again."""
        with self.services.db.read() as db:
            own = Connection.tenant_id == UUID(self.tenant["id"])
            return Counter(db.scalars(sqlalchemy.select(Connection.status).where(own)))

    def all_are(self, status, count):
        there = {status: count}
        return self.statuses() == there and self.summary() == {"total": count, "by_status": there}

    def await_all(self, status, count):
        until(lambda: self.all_are(status, count), seconds=PATIENCE)

    def make_due(self):
        """As it is when their next proof is."""
        with self.services.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.update(Connection).values(due_at=now()))


@contextlib.contextmanager
def organisation_of(app, aws):
    made = Organisation(app, aws)
    try:
        yield made
    finally:
        made.has()


@pytest.fixture
def organisation(app, aws) -> Iterator[Organisation]:
    with organisation_of(app, aws) as made:
        yield made


def test_a_whole_organisation_comes_by_itself_grows_and_goes(organisation, aws):
    asked_before = len(aws.sts_times)
    organisation.has(*ACCOUNTS)
    organisation.launch()
    members = [*ACCOUNTS, organisation.account]
    organisation.await_stack("CREATE_COMPLETE")
    assert organisation.instances() == dict.fromkeys(ACCOUNTS, "CURRENT")
    organisation.await_all("verified", len(members))
    assert organisation.accounts("verified") == dict.fromkeys(members, 1)

    organisation.has(*ACCOUNTS, NEWCOMER)
    members.append(NEWCOMER)
    organisation.await_all("verified", len(members))
    assert organisation.instances()[NEWCOMER] == "CURRENT"

    organisation.cloudformation.delete_stack(StackName=organisation.stack_id)
    organisation.await_stack("DELETE_COMPLETE")
    assert organisation.audited("connection.stack_deleted") == {}
    organisation.make_due()  # nobody was told: Deputy notices by the roles
    organisation.await_all("broken", len(members))
    assert organisation.accounts("broken") == dict.fromkeys(members, 1)
    assert most_in_a_second(aws.sts_times[asked_before:]) <= BUDGET


def test_a_delegated_administrator_has_the_role_once_though_its_account_is_one_of_the_unit(
    organisation,
):
    """Which a StackSet of theirs does reach: a second role of that name there would fail."""
    members = [*ACCOUNTS[:2], organisation.account]
    organisation.has(*members)
    organisation.launch(call_as="DELEGATED_ADMIN")
    organisation.await_stack("CREATE_COMPLETE")
    assert organisation.instances() == dict.fromkeys(ACCOUNTS[:2], "CURRENT")
    organisation.await_all("verified", len(members))
    assert organisation.audited("connection.registered") == dict.fromkeys(members, 1)


@pytest.fixture
def shown_again_soon(aws, vendor):
    def after(seconds):
        root_client(aws, "sqs", VENDOR_ACCOUNT).set_queue_attributes(
            QueueUrl=vendor.registration_queue_url, Attributes={"VisibilityTimeout": str(seconds)}
        )

    after(SHOWN_AGAIN)
    yield
    after(60)


@pytest.mark.parametrize(
    ("count", "shares"),
    [(6, [0.4]), pytest.param(200, [0.2, 0.6], marks=pytest.mark.soak)],
    ids=["6", "200"],
)
@pytest.mark.usefixtures("shown_again_soon")
def test_killing_the_worker_in_the_middle_of_many_registrations_loses_and_repeats_nothing(
    idle, aws, tmp_path, count, shares
):
    many = [f"4{number:011}" for number in range(count - 1)]  # and the management account
    worker = WorkerProcess(idle.extensions["deputy"], aws, tmp_path)
    with organisation_of(idle, aws) as organisation, contextlib.ExitStack() as after:
        after.callback(worker.kill)
        organisation.has(*many)
        organisation.launch()
        for share in shares:
            until(
                lambda share=share: organisation.statuses().total() >= share * count,
                seconds=PATIENCE,
            )
            worker.kill()
            worker.start()
            lapse(organisation.services)
        organisation.await_all("verified", count)
        organisation.await_stack("CREATE_COMPLETE")
        for action in ("connection.registered", "connection.verified"):
            assert organisation.audited(action) == dict.fromkeys([*many, organisation.account], 1)
