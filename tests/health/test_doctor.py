"""`doctor` explains misconfigured deployments: for each, what it says is enough to mend it
without the source.
"""

import json
import re
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import click
import pytest
import sqlalchemy
from flask import Flask
from sqlalchemy import make_url

from app.aws import vendor_resources
from app.cli import commands as cli
from app.clock import now
from app.config import Config, ConfigError
from app.factory import create_app
from app.health.heartbeats import Heartbeat
from app.ids import first_id_at, new_id
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent, Connection, Trigger
from dev.stack import ROOT
from tests.conftest import make_config, publish_templates
from tests.proofs.test_canary import DEMANDS_AN_ID, of_nobody, roles_of
from tests.support.cast import root_client
from tests.support.databases import empty_database, new_database
from tests.support.rows import ByHand, connection_row, tenant_row

NOWHERE = "127.0.0.1:1"


class Heard:
    """The registration queue, as a background worker that listens to it sees it."""

    unanswered_at = None

    @property
    def heard_at(self):
        return now()


class Deployment:
    """One in which nothing is wrong, and which can be asked how it would be with other settings."""

    def __init__(self, aws, config: Config) -> None:
        self.aws, self.config = aws, config
        self.app = create_app(config)
        publish_templates(self.app)
        self.db = self.app.extensions["deputy"].db
        connection_row(self.db, tenant_row(self.db))
        self.worker = Heartbeat(self.db, "flask", Heard())

    def doctor(self, exits: int, **changes) -> dict[str, dict[str, str]]:
        """What each check says, with these settings changed."""
        app = create_app(replace(self.config, **changes))  # a process that kept no findings
        try:
            return examined(app, exits)
        finally:
            app.extensions["deputy"].db.engine.dispose()

    def client(self, service: str):
        return closing(root_client(self.aws, service, self.config.broker.account_id))


def examined(app: Flask, exits: int) -> dict[str, dict[str, str]]:
    done = app.test_cli_runner().invoke(args=["doctor", "--json"])
    assert done.exit_code == exits, done.output
    found = json.loads(done.stdout)["checks"]
    for one in found:
        assert set(one) == {"name", "status", "seen", "next"}
        assert one["seen"]
        assert one["next"] or one["status"] in {"ok", "skipped"}, (
            "what is wrong comes with what to do"
        )
    return {one["name"]: one for one in found}


def wrong(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {
        name: one["status"] for name, one in found.items() if one["status"] in {"warning", "failed"}
    }


@pytest.fixture(scope="module", params=["sqlite"])
def whole_deployment(request, aws, canary_stack, valkey):
    """On SQLite. What doctor asks the database is tried on PostgreSQL too."""
    with new_database(request.param) as url:
        topic, queue = canary_stack.registration_topic_arn, canary_stack.registration_queue_url
        more = {
            "registration_topic_arn": topic,
            "registration_queue_url": queue,
            **roles_of(canary_stack),
        }
        made = Deployment(
            aws, make_config(url, cache_url=valkey.url, celery_url=valkey.url, **more)
        )
        yield made
        made.db.engine.dispose()


on_postgresql = pytest.mark.parametrize("whole_deployment", ["postgresql"], indirect=True)
on_both = pytest.mark.parametrize("whole_deployment", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def deployment(whole_deployment) -> Deployment:
    whole_deployment.worker.beat()
    return whole_deployment


@on_both
def test_of_a_good_deployment_nothing_is_said_to_be_wrong(deployment):
    found = deployment.doctor(0)
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(found, "ok")
    assert found.keys() == documented()
    text = deployment.app.test_cli_runner().invoke(args=["doctor"])
    assert (text.exit_code, text.output.split()[:3]) == (0, ["status", "name", "seen"])


def documented() -> set[str]:
    """The checks that docs/monitoring.md has in its tables."""
    tables = (
        (ROOT / "docs" / "monitoring.md")
        .read_text()
        .partition("\n## Health\n")[2]
        .partition("\n## ")[0]
    )
    return set(re.findall(r"^\| `(\w+)` +\|", tables, re.MULTILINE)) - {"errors"}  # a table's head


@on_both
def test_how_much_is_due_is_said(deployment):
    tenant, late = tenant_row(deployment.db), now() - timedelta(seconds=30)
    before = due_in(deployment.doctor(0))
    made = [
        connection_row(deployment.db, tenant, number=number, due_at=late, due_for=due_for)
        for number, due_for in enumerate([Trigger.SCHEDULED] * 5 + [Trigger.ISSUING], 2)
    ]
    try:
        found = deployment.doctor(0)
    finally:
        with deployment.db.write(SYSTEM) as db:
            db.execute(
                sqlalchemy.update(Connection).where(Connection.id.in_(made)).values(due_at=None)
            )
    assert due_in(found) == (before[0] + 1, before[1] + 5)


def due_in(found: dict[str, dict[str, str]]) -> tuple[int, int]:
    said = r"(\d+) urgent proofs and (\d+) routine ones are due\."
    urgent, routine = re.fullmatch(said, found["backlog"]["seen"]).groups()
    return int(urgent), int(routine)


def test_a_deployment_without_customers_has_nothing_wrong(deployment):
    with new_database("sqlite") as url:
        database = Database(url)
        Heartbeat(database, "flask", Heard()).beat()
        database.engine.dispose()
        found = deployment.doctor(0, database_url=url)
    assert found["may_assume"]["status"] == "skipped"
    assert "docs/onboarding.md" in found["may_assume"]["next"]


def test_how_long_sessions_can_be(deployment):
    assert (
        "3600 s at most: the broker is a role" in deployment.doctor(0)["session_duration"]["seen"]
    )
    user = deployment.config.broker.parse(
        f"arn:aws:iam::{deployment.config.broker.account_id}:user/deputy"
    )
    found = deployment.doctor(2, broker=user, max_session_seconds=7200)
    assert "7200 s at most: the broker is a user" in found["session_duration"]["seen"]


# --- misconfigured deployments ---


def test_settings_that_contradict_each_other(monkeypatch):
    monkeypatch.setenv("DEPUTY_BROKER_PRINCIPAL_ARN", "arn:aws:iam::111122223333:role/DeputyBroker")
    monkeypatch.setenv("DEPUTY_MAX_SESSION_SECONDS", "7200")
    with pytest.raises(ConfigError) as bad:
        Config.from_environment()
    with click.Context(click.Group("flask")):
        app = cli.without_settings(str(bad.value))
    [settings] = examined(app, 2).values()
    assert (settings["name"], settings["status"]) == ("settings", "failed")
    assert "role chaining" in settings["seen"]
    assert "DEPUTY_SECRET_KEYS" in settings["seen"]
    assert "\n" not in settings["seen"], "a table has a line for each check"


def test_a_database_that_is_not_there(deployment):
    found = deployment.doctor(2, database_url=f"postgresql+psycopg://deputy@{NOWHERE}/deputy")
    assert wrong(found) == {"database": "failed"}, "and nothing else is blamed for it"
    assert "DEPUTY_DATABASE_URL" in found["database"]["next"]
    assert (found["migrations"]["status"], found["workers"]["seen"]) == (
        "skipped",
        "Not looked at: migrations comes first.",
    )


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_database_without_migrations(deployment, tmp_path, engine):
    with empty_database(engine, tmp_path) as url:
        found = deployment.doctor(2, database_url=url)
    assert wrong(found) == {"migrations": "failed"}
    assert "flask --app wsgi migrate" in found["migrations"]["next"]


def test_no_credentials_and_those_of_somebody_else(deployment, monkeypatch):
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    found = deployment.doctor(2)
    assert wrong(found) == {"aws": "failed"}
    assert "no AWS credentials" in found["aws"]["seen"]
    assert deployment.config.broker.arn in found["aws"]["next"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", deployment.config.broker.account_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
    found = deployment.doctor(2)
    assert wrong(found) == {"aws": "failed"}
    assert "not those of BROKER_PRINCIPAL_ARN" in found["aws"]["seen"]


@pytest.mark.parametrize(("seconds", "status", "exits"), [(-20, "warning", 1), (400, "failed", 2)])
def test_a_clock_that_is_wrong(deployment, monkeypatch, seconds, status, exits):
    monkeypatch.setattr("app.health.vendor_checks.now", lambda: now() + timedelta(seconds=seconds))
    found = deployment.doctor(exits)
    assert wrong(found) == {"aws_clock": status}
    assert ("ahead of" if seconds > 0 else "behind") in found["aws_clock"]["seen"]
    assert "NTP" in found["aws_clock"]["next"]


@contextmanager
def hardened(deployment, statement):
    """The broker with one more policy."""
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with deployment.client("iam") as iam:
        iam.put_role_policy(
            RoleName="DeputyBroker", PolicyName="hardening", PolicyDocument=document
        )
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName="DeputyBroker", PolicyName="hardening")


def test_a_policy_of_ours_that_demands_an_external_id(deployment):
    with hardened(deployment, DEMANDS_AN_ID):
        found = deployment.doctor(2)
    assert wrong(found) == {"prober": "failed"}
    assert "sts:ExternalId" in found["prober"]["next"]


def test_a_canary_that_trusts_another_broker(deployment):
    role = deployment.config.canary_role_arn
    with closing(root_client(deployment.aws, "iam", role.account_id)) as iam:
        good = iam.get_role(RoleName=role.name)["Role"]["AssumeRolePolicyDocument"]
        changed = json.loads(json.dumps(good))
        of_nobody(changed["Statement"][0])
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=json.dumps(changed))
        try:
            found = deployment.doctor(1)
        finally:
            iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=json.dumps(good))
    assert wrong(found) == {"prober": "warning"}
    assert "cloudformation/canary.yaml" in found["prober"]["next"]


def test_a_broker_whom_no_role_lets_in_any_more(deployment):
    found = deployment.doctor(2, proof_max_age=0)
    assert wrong(found) == {"may_assume": "failed"}
    assert "sts:AssumeRole" in found["may_assume"]["next"]


def test_a_bucket_and_a_queue_that_do_not_exist(deployment):
    url = f"{deployment.config.registration_queue_url}-old"
    found = deployment.doctor(2, template_bucket="no-such-bucket-here", registration_queue_url=url)
    assert wrong(found) == {"bucket": "failed", "queue": "failed"}, (
        "and the topic is not blamed for it"
    )
    assert found["bucket"]["seen"] == "There is no bucket no-such-bucket-here."
    assert found["templates"]["status"] == "skipped"
    assert "There is no queue of DEPUTY_REGISTRATION_QUEUE_URL" in found["queue"]["seen"]
    found = deployment.doctor(
        2, registration_topic_arn=f"{deployment.config.registration_topic_arn}-old"
    )
    assert "There is no topic of DEPUTY_REGISTRATION_TOPIC_ARN" in found["topic"]["seen"], found[
        "topic"
    ]


def test_a_bucket_and_a_work_queue_in_another_region(deployment, monkeypatch):
    """Which the sandbox does not have: its buckets are in every region."""
    monkeypatch.setattr(vendor_resources, "bucket", lambda _: (301, now()))
    found = deployment.doctor(
        2, celery_url="sqs://sqs.eu-west-1.amazonaws.com/111122223333/deputy-work"
    )
    assert wrong(found) == {"bucket": "failed", "celery": "failed"}
    assert "is not in us-east-1" in found["bucket"]["seen"]
    assert "AWS_REGION" in found["bucket"]["next"]
    assert "not in us-east-1" in found["celery"]["seen"]


def test_a_bucket_that_customers_may_not_read(deployment):
    """To publish again would not help, and `templates publish` says that they are there."""
    blocked = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    with deployment.client("s3") as s3:
        bucket = {"Bucket": deployment.config.template_bucket}
        before = s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=blocked)
        try:
            found = deployment.doctor(2)
        finally:
            s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=before)
    assert wrong(found) == {"templates": "failed"}
    assert "is missing, or not public" in found["templates"]["seen"]
    assert "Block Public Access" in found["templates"]["next"]


def test_s3_sns_and_sqs_that_do_not_answer(deployment, work_queue_url, monkeypatch):
    for service in ("S3", "SNS", "SQS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://{NOWHERE}")
    found = deployment.doctor(2, celery_url=work_queue_url)
    warnings = dict.fromkeys(("topic", "queue", "dead_letters"), "warning")
    assert wrong(found) == {"bucket": "failed", "celery": found["celery"]["status"], **warnings}
    assert found["bucket"]["seen"] == "S3 does not answer."
    assert (found["aws_clock"]["status"], found["templates"]["status"]) == ("skipped", "skipped")
    assert "SNS and SQS" in found["queue"]["next"]
    assert found["celery"]["seen"] == "SQS does not answer, so nothing is proven."


def test_a_queue_without_dead_letters(deployment):
    url = deployment.config.registration_queue_url
    with deployment.client("sqs") as sqs:
        good = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "RedrivePolicy"])[
            "Attributes"
        ]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=good | {"RedrivePolicy": ""})
        try:
            found = deployment.doctor(1)
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes=good)
    assert wrong(found) == {"queue": "warning"}
    assert "no dead-letter queue" in found["queue"]["seen"]
    assert found["dead_letters"]["status"] == "skipped"


def test_a_queue_that_the_topic_may_not_send_to(deployment):
    url = deployment.config.registration_queue_url
    with deployment.client("sqs") as sqs:
        good = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"][
            "Policy"
        ]
        sqs.set_queue_attributes(
            QueueUrl=url,
            Attributes={
                "Policy": good.replace(deployment.config.registration_topic_arn, "arn:other")
            },
        )
        try:
            found = deployment.doctor(2)
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": good})
    assert wrong(found) == {"queue": "failed"}
    assert "cloudformation/broker.yaml" in found["queue"]["next"]


@contextmanager
def topic_of_the_vendor(deployment: Deployment, publishers: str):
    policy = {
        "Effect": "Allow",
        "Principal": {"AWS": publishers},
        "Action": "sns:Publish",
        "Resource": "*",
    }
    with deployment.client("sns") as sns:
        arn = sns.create_topic(
            Name="other",
            Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [policy]})},
        )["TopicArn"]
        yield arn
        sns.delete_topic(TopicArn=arn)


def test_a_topic_that_sends_to_another_queue(deployment):
    with topic_of_the_vendor(deployment, "*") as arn:
        found = deployment.doctor(2, registration_topic_arn=arn)
    assert found["topic"]["status"] == "failed"
    assert "Subscribe the queue to the topic" in found["topic"]["next"]


def test_a_topic_to_which_customers_may_not_publish(deployment):
    with topic_of_the_vendor(deployment, deployment.config.broker.account_id) as arn:
        found = deployment.doctor(2, registration_topic_arn=arn)
    assert "does not let customers publish" in found["topic"]["seen"]


def test_a_broker_that_may_not_look_at_its_queues(deployment, work_queue_url):
    """As with the stack of an earlier release: that is no fault of the registration queue, and
    says how to change it.
    """
    denied = {
        "Effect": "Deny",
        "Action": ["sqs:GetQueueAttributes", "sns:GetTopicAttributes"],
        "Resource": "*",
    }
    with hardened(deployment, denied):
        found = deployment.doctor(1, celery_url=work_queue_url)
    for name in ("topic", "queue", "dead_letters"):
        assert (found[name]["status"], found[name]["seen"]) == (
            "skipped",
            "The broker may not look at it.",
        )
        assert "cloudformation/broker.yaml" in found[name]["next"]
    assert wrong(found) == {"celery": "warning"}
    assert "CarryWork" in found["celery"]["next"]


def test_dead_letters(deployment):
    url = deployment.config.registration_queue_url
    with deployment.client("sqs") as sqs:
        policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])[
            "Attributes"
        ]["RedrivePolicy"]
        name = json.loads(policy)["deadLetterTargetArn"].rpartition(":")[2]
        dead = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        sqs.send_message(QueueUrl=dead, MessageBody="given up")
        try:
            found = deployment.doctor(1)
        finally:
            [sent] = sqs.receive_message(QueueUrl=dead)["Messages"]
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=sent["ReceiptHandle"])
    assert wrong(found) == {"dead_letters": "warning"}
    assert found["dead_letters"]["seen"].startswith("1 messages")


def test_each_of_several_faults_is_named(deployment):
    """A setting that is none, a cache and a message broker that are away, and templates of
    another name.
    """
    found = deployment.doctor(
        2,
        likely_mistakes=("DEPUTY_PROOF_MAXAGE is not a setting.",),
        cache_url=f"redis://{NOWHERE}/0",
        celery_url=f"redis://{NOWHERE}/0",
        vendor_name="Renamed Vendor",
    )
    assert wrong(found) == {
        "settings": "warning",
        "cache": "warning",
        "celery": "failed",
        "templates": "failed",
    }
    assert "DEPUTY_PROOF_MAXAGE" in found["settings"]["seen"]
    assert "DEPUTY_CACHE_URL" in found["cache"]["next"]
    assert "DEPUTY_CELERY_URL" in found["celery"]["next"]
    assert "templates publish" in found["templates"]["next"]


@contextmanager
def log_of(deployment: Deployment, *statements: str):
    """The audit log after these statements; their effects are gone at the end."""
    with new_database("postgresql") as url:
        database = Database(url)
        with database.write(SYSTEM) as db:
            for statement in statements:
                db.execute(sqlalchemy.text(statement))
        connection_row(database, tenant_row(database))
        Heartbeat(database, "flask", Heard()).beat()
        yield {"database_url": url}
        database.engine.dispose()


@on_postgresql
def test_a_database_role_without_rights_on_a_table_that_an_upgrade_has_made(deployment):
    """Web processes answer 500 then, and are ready. By the guide's statements, before that table
    was there.
    """
    role, admin = f"web_{new_id().hex}", ByHand(deployment.config.database_url)
    url = (
        make_url(deployment.config.database_url)
        .set(username=role)
        .render_as_string(hide_password=False)
    )
    admin(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        assert deployment.doctor(0, database_url=url)["rights"]["status"] == "ok"
        admin(f"REVOKE INSERT ON external_id_trials FROM {role}")
        found = deployment.doctor(2, database_url=url)
        admin(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        nothing = deployment.doctor(2, database_url=url)
    finally:
        admin(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert wrong(found) == {"rights": "failed"}
    assert "may not write into external_id_trials." in found["rights"]["seen"]
    assert "Grant it" in found["rights"]["next"]
    assert nothing["rights"]["status"] == "failed"


@on_postgresql
def test_an_audit_log_whose_months_were_not_made_ahead(deployment):
    coming = (now().replace(day=1) + timedelta(days=31)).strftime("%Y_%m")
    with log_of(deployment, f"DROP TABLE audit_events_{coming}") as settings:
        found = deployment.doctor(1, **settings)
        assert wrong(found) == {"audit_log": "warning"}
        assert "no partition for the next month" in found["audit_log"]["seen"]
        assert "background worker" in found["audit_log"]["next"]


@on_postgresql
def test_months_that_wait_for_the_operator(deployment):
    month = now().strftime("%Y_%m")
    with log_of(
        deployment, f"ALTER TABLE audit_events DETACH PARTITION audit_events_{month}"
    ) as settings:
        found = deployment.doctor(1, **settings)
        assert wrong(found) == {"audit_log": "warning"}
        assert (
            found["audit_log"]["seen"]
            == f"1 tables are detached from the audit log: audit_events_{month}."
        )
        assert "docs/monitoring.md" in found["audit_log"]["next"]


@on_both
def test_an_audit_log_that_nothing_is_removed_from(deployment):
    event = AuditEvent(
        id=first_id_at(now() - timedelta(days=65)),
        at=now() - timedelta(days=65),
        action="tests.old",
        outcome="ok",
        actor_kind="operator",
        actor_name="tests",
        details={},
    )
    with deployment.db.write(SYSTEM) as db:
        db.add(event)
    found = deployment.doctor(1, audit_retention_days=30)
    assert wrong(found) == {"audit_log": "warning"}
    assert (
        f"The oldest event is of {now() - timedelta(days=65):%Y-%m-%d}"
        in found["audit_log"]["seen"]
    )
    assert (
        deployment.doctor(0, audit_retention_days=40)["audit_log"]["seen"]
        == "Events are kept for 40 days."
    )
    assert (
        deployment.doctor(0, audit_retention_days=0)["audit_log"]["seen"] == "All events are kept."
    )


@pytest.fixture
def work_queue_url(deployment):
    """An SQS queue of the broker's account for Celery's messages: the setting that names it."""
    with deployment.client("sqs") as sqs:
        url = sqs.create_queue(QueueName="deputy-work")["QueueUrl"]
        yield url.replace("http://", "sqs://")
        sqs.delete_queue(QueueUrl=url)


def test_a_queue_of_sqs_that_carries_the_work(deployment, work_queue_url):
    assert deployment.doctor(0, celery_url=work_queue_url)["celery"]["seen"].startswith(
        "The queue is there"
    )
    found = deployment.doctor(2, celery_url=f"{work_queue_url}-old")
    assert wrong(found) == {"celery": "failed"}
    assert "CeleryOverSqs" in found["celery"]["next"]


@on_both
def test_no_background_worker(deployment):
    deployment.worker.end()
    found = deployment.doctor(2)
    assert wrong(found) == {"workers": "failed"}
    assert found["registrations"]["seen"] == "Not looked at: workers comes first."
    assert "Start one" in found["workers"]["next"]
    app = create_app(deployment.config)
    text = app.test_cli_runner().invoke(args=["doctor"])
    app.extensions["deputy"].db.engine.dispose()
    lines = text.output.splitlines()
    place = next(n for n, line in enumerate(lines) if line.split()[:2] == ["failed", "workers"])
    assert lines[place + 1] == f"    → {found['workers']['next']}", (
        "what to do is below what was seen"
    )
    assert text.exit_code == 2


def test_what_is_not_configured_is_skipped_and_is_no_fault(deployment):
    absent = ("cache_url", "celery_url", "registration_topic_arn", "registration_queue_url")
    found = deployment.doctor(
        0, canary_role_arn=None, stranger_role_arn=None, **dict.fromkeys(absent)
    )
    skipped = {name for name, one in found.items() if one["status"] == "skipped"}
    assert skipped == {"prober", "topic", "queue", "dead_letters", "cache", "celery"}
    assert "canary.yaml" in found["prober"]["next"]
