"""`doctor` explains misconfigured deployments: for each, what it says is enough to mend it
without the source.
"""

import json
import re
from contextlib import closing, contextmanager
from datetime import timedelta

import click
import pytest
import sqlalchemy
from moto.sns.models import sns_backends
from sqlalchemy import make_url

from app.aws import vendor_resources
from app.clock import now
from app.config import Config, ConfigError
from app.factory import create_app, without_settings
from app.health.heartbeats import Heartbeat
from app.ids import Broker, first_id_at, new_id
from app.store.database import SYSTEM, Database
from app.store.models import AuditEvent, Connection, ConnectionStatus, Tenant, TenantStatus, Trigger
from dev.stack import ROOT
from tests.conftest import make_config, publish_templates, with_settings
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

    def __init__(self, aws, config):
        self.aws, self.config = aws, config
        self.app = create_app(config)
        publish_templates(self.app)
        self.db = self.app.extensions["deputy"].db
        connection_row(self.db, tenant_row(self.db))
        self.worker = Heartbeat(self.db, Heard())

    def doctor(self, wrong=None, **changes):
        """What each check says, with these settings changed. `wrong`: those that say so."""
        app = create_app(with_settings(self.config, **changes))  # a process that kept no findings
        try:
            return examined(app, wrong or {})
        finally:
            app.extensions["deputy"].db.engine.dispose()

    def client(self, service, region="us-east-1"):
        return closing(root_client(self.aws, service, self.config.aws.broker.account_id, region))


def examined(app, wrong):
    done = app.test_cli_runner().invoke(args=["doctor", "--json"])
    found = json.loads(done.stdout)["checks"]
    assert {c["name"]: c["status"] for c in found if c["status"] in {"warning", "failed"}} == wrong
    assert done.exit_code == (2 if "failed" in wrong.values() else bool(wrong))
    for check in found:
        assert set(check) == {"name", "status", "seen", "next"}
        assert check["seen"]
        assert check["next"] or check["status"] in {"ok", "skipped"}, "and says what to do"
    return {check["name"]: check for check in found}


def named(found, *statuses):
    return {name: one["status"] for name, one in found.items() if one["status"] in statuses}


def says(found, **texts):
    """What a check has seen, and what to do, have this text in them."""
    for name, text in texts.items():
        assert text in f"{found[name]['seen']} {found[name]['next']}"


@pytest.fixture(scope="module")
def whole_deployment(aws, canary_stack, valkey):
    with new_database() as url:
        stack = canary_stack
        more = {
            "registration_topic_arns": (stack.registration_topic_arn, *stack.further_topic_arns),
            "registration_queue_url": stack.registration_queue_url,
            **roles_of(canary_stack),
        }
        made = Deployment(aws, make_config(url, cache_url=valkey.url, **more))
        yield made
        made.db.engine.dispose()


@pytest.fixture
def deployment(whole_deployment) -> Deployment:
    whole_deployment.worker.beat()
    return whole_deployment


def test_of_a_good_deployment_nothing_is_wrong_and_how_much_is_due_is_said(deployment):
    tenant, late = tenant_row(deployment.db), now() - timedelta(seconds=30)
    none_due = sqlalchemy.update(Connection).values(due_at=None)
    with deployment.db.write(SYSTEM) as db:
        db.execute(none_due)
    for number, due_for in enumerate([Trigger.SCHEDULED] * 5 + [Trigger.ISSUING], 2):
        connection_row(deployment.db, tenant, number=number, due_at=late, due_for=due_for)
    found = deployment.doctor()
    with deployment.db.write(SYSTEM) as db:
        db.execute(none_due)
    assert named(found, "ok").keys() == found.keys() == documented()
    says(found, session_duration="3600 s at most: the broker is a role")
    assert found["backlog"]["seen"] == "1 urgent proofs and 5 routine ones are due."


def documented():
    """The checks that docs/monitoring.md has in its tables."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    tables = page.partition("\n## Health\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` +\|", tables, re.MULTILINE)) - {"errors"}  # a table's head


# --- misconfigured deployments ---


def test_settings_that_contradict_each_other(monkeypatch):
    monkeypatch.setenv("DEPUTY_BROKER_PRINCIPAL_ARN", "arn:aws:iam::111122223333:role/DeputyBroker")
    monkeypatch.setenv("DEPUTY_MAX_SESSION_SECONDS", "7200")
    with pytest.raises(ConfigError) as bad:
        Config.from_environment()
    with click.Context(click.Group("flask")):
        app = without_settings(str(bad.value))
    found = examined(app, {"settings": "failed"})
    text = found["settings"]["seen"]
    assert re.search("DEPUTY_SECRET_KEYS: .*role chaining", text), "on one line of a table"


def test_a_database_that_is_not_there(deployment):
    found = deployment.doctor(
        {"database": "failed"}, database_url=f"postgresql+psycopg://deputy@{NOWHERE}/deputy"
    )
    says(found, database="DEPUTY_DATABASE_URL", workers="Not looked at: migrations comes first.")


def test_a_database_without_migrations(deployment, tmp_path):
    with empty_database() as url:
        found = deployment.doctor({"migrations": "failed"}, database_url=url)
    says(found, migrations="flask --app wsgi migrate")


def test_no_credentials_and_those_of_somebody_else(deployment, monkeypatch):
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    found = deployment.doctor({"aws": "failed"})
    says(found, aws="no AWS credentials")
    assert deployment.config.aws.broker.arn in found["aws"]["next"]
    account = deployment.config.aws.broker.account_id
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", account)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
    user = Broker.parse(f"arn:aws:iam::{account}:user/deputy")
    found = deployment.doctor(
        {"aws": "failed", "templates": "failed"}, broker=user, max_session_seconds=7200
    )
    says(found, aws="not those of DEPUTY_BROKER_PRINCIPAL_ARN")
    says(found, session_duration="7200 s at most: the broker is a user")


def an_old_event(database):
    """When it happened."""
    oldest = now() - timedelta(days=65)
    row = {"action": "tests.old", "outcome": "ok", "actor_kind": "operator", "actor_name": "tests"}
    with database.write(SYSTEM) as db:
        db.add(AuditEvent(id=first_id_at(oldest), at=oldest, details={}, **row))
    return oldest


def test_a_clock_that_is_wrong_and_an_audit_log_that_nothing_is_removed_from(
    deployment, monkeypatch
):
    oldest = an_old_event(deployment.db)
    for seconds, clock, side, days, log, text in (
        (-20, "warning", "behind", 30, {"audit_log": "warning"}, f"event is of {oldest:%Y-%m-%d}"),
        (400, "failed", "ahead of", 40, {}, "Events are kept for 40 days."),
    ):
        ahead = timedelta(seconds=seconds)
        monkeypatch.setattr("app.health.doctor_checks.now", lambda ahead=ahead: now() + ahead)
        found = deployment.doctor({"aws_clock": clock, **log}, audit_retention_days=days)
        says(found, aws_clock=side, audit_log=text)
        says(found, aws_clock="NTP")


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


@contextmanager
def canary_of_nobody(deployment):
    """The canary trusts another broker."""
    role = deployment.config.proofs.canary_role_arn
    with closing(root_client(deployment.aws, "iam", role.account_id)) as iam:
        good = iam.get_role(RoleName=role.name)["Role"]["AssumeRolePolicyDocument"]
        changed = json.loads(json.dumps(good))
        of_nobody(changed["Statement"][0])
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=json.dumps(changed))
        try:
            yield
        finally:
            iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=json.dumps(good))


@contextmanager
def blocked(deployment):
    """The bucket's templates are not public."""
    every = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    bucket = {"Bucket": deployment.config.aws.template_bucket}
    with deployment.client("s3") as s3:
        before = s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(
            **bucket, PublicAccessBlockConfiguration=dict.fromkeys(every, True)
        )
        try:
            yield
        finally:
            s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=before)


@contextmanager
def queue_with_policy(deployment, *changes, **attributes):
    """The registration queue, in whose policy these texts are replaced."""
    url = deployment.config.aws.registration_queue_url
    with deployment.client("sqs") as sqs:
        good = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "RedrivePolicy"])[
            "Attributes"
        ]
        policy = good["Policy"]
        for old, new in changes:
            assert old in policy
            policy = policy.replace(old, new)
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy, **attributes})
        try:
            yield
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes=good)


@contextmanager
def dead_letter(deployment):
    url = deployment.config.aws.registration_queue_url
    dead = vendor_resources.queue("us-east-1", url).dead_letter_url
    with deployment.client("sqs") as sqs:
        sqs.send_message(QueueUrl=dead, MessageBody="given up")
        try:
            yield
        finally:
            sqs.purge_queue(QueueUrl=dead)


@contextmanager
def topic_of_the_vendor(deployment, publishers):
    """Another one, to which they may publish, and that sends to no queue."""
    statement = {"Effect": "Allow", "Principal": {"AWS": publishers}, "Action": "sns:Publish"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement | {"Resource": "*"}]})
    with deployment.client("sns") as sns:
        arn = sns.create_topic(Name="other", Attributes={"Policy": document})["TopicArn"]
        yield arn
        sns.delete_topic(TopicArn=arn)


def test_a_policy_of_ours_that_demands_an_external_id_and_dead_letters(deployment):
    with hardened(deployment, DEMANDS_AN_ID), dead_letter(deployment):
        found = deployment.doctor({"prober": "failed", "dead_letters": "warning"})
    says(found, prober="sts:ExternalId")
    assert found["dead_letters"]["seen"].startswith("1 messages")


def test_a_canary_of_another_broker_and_a_closed_bucket_and_a_topic_of_another_queue(deployment):
    """To publish again would not help, and `templates publish` says that templates are there."""
    with (
        canary_of_nobody(deployment),
        blocked(deployment),
        topic_of_the_vendor(deployment, "*") as arn,
    ):
        failed = dict.fromkeys(("topic", "queue", "templates"), "failed")
        found = deployment.doctor({"prober": "warning", **failed}, registration_topic_arns=(arn,))
    says(found, prober="cloudformation/canary.yaml", queue="cloudformation/broker.yaml")
    says(found, topic="Subscribe the queue to the topic", templates="is missing, or not public")
    says(found, templates="Block Public Access")


def test_a_broker_whom_no_role_lets_in_and_a_closed_topic_and_a_queue_without_dead_letters(
    deployment,
):
    config = deployment.config
    with (
        topic_of_the_vendor(deployment, config.aws.broker.account_id) as arn,
        queue_with_policy(
            deployment, (config.aws.registration_topic_arns[0], arn), RedrivePolicy=""
        ),
    ):
        found = deployment.doctor(
            {"may_assume": "failed", "topic": "failed", "queue": "warning"},
            registration_topic_arns=(arn,),
            proof_max_age=0,
        )
    says(found, may_assume="sts:AssumeRole", topic="does not let customers publish")
    says(found, queue="no dead-letter queue")
    assert found["dead_letters"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("table", "status"),
    [
        (Connection, ConnectionStatus.ENDED),
        (Connection, ConnectionStatus.DELETED),
        (Tenant, TenantStatus.SUSPENDED),
    ],
)
def test_a_role_that_is_not_asked_any_more_says_nothing_about_the_broker(deployment, table, status):
    with deployment.db.write(SYSTEM) as db:
        statuses = {row.id: row.status for row in db.scalars(sqlalchemy.select(table))}
        db.execute(sqlalchemy.update(table).values(status=status))
    try:
        found = deployment.doctor(proof_max_age=0)
    finally:
        with deployment.db.write(SYSTEM) as db:
            for row_id, before in statuses.items():
                one = sqlalchemy.update(table).where(table.id == row_id)
                db.execute(one.values(status=before))
    assert found["may_assume"]["status"] == "skipped"


def test_a_bucket_and_a_queue_that_do_not_exist(deployment):
    url = f"{deployment.config.aws.registration_queue_url}-old"
    found = deployment.doctor(
        {"bucket": "failed", "queue": "failed"},
        template_bucket="no-such-bucket-here",
        registration_queue_url=url,
    )
    assert found["templates"]["status"] == "skipped"
    says(found, bucket="There is no bucket no-such-bucket-here.")
    says(found, queue="There is no queue of DEPUTY_REGISTRATION_QUEUE_URL")
    topic = f"{deployment.config.aws.registration_topic_arns[0]}-old"
    found = deployment.doctor(
        {"topic": "failed", "queue": "failed"}, registration_topic_arns=(topic,)
    )
    says(found, topic="There is no topic of DEPUTY_REGISTRATION_TOPIC_ARN")


# --- topics in several regions ---

FRANKFURT, MILAN = "eu-central-1", "eu-south-1"


@contextmanager
def subscription_of(deployment, region):
    """A topic's only subscription, which is afterwards as before."""
    topic = deployment.config.aws.registration_topics[region]
    with deployment.client("sns", region) as sns:
        [before] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        yield sns, before["SubscriptionArn"]
        [*left] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        for subscription in left:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=before["Endpoint"])


def test_a_topic_that_is_absent_is_created_by_the_command_for_its_region(deployment, canary_stack):
    topics = deployment.config.aws.registration_topics
    absent = topics | {FRANKFURT: f"{topics[FRANKFURT]}-old"}
    found = deployment.doctor(
        {"topic": "failed", "queue": "failed"}, registration_topic_arns=tuple(absent.values())
    )
    assert "in eu-central-1, so stacks there fail" in found["topic"]["seen"]
    assert MILAN not in found["topic"]["seen"]
    assert found["topic"]["next"].endswith(
        "Then run: aws cloudformation deploy --region eu-central-1 --stack-name deputy-region"
        " --template-file cloudformation/broker-region.yaml --parameter-overrides"
        f" RegistrationQueueArn={canary_stack.registration_queue_arn}"
    )
    assert "the topics in eu-central-1 send" in found["queue"]["seen"]
    says(found, queue="--parameter-overrides RegistrationRegions=eu-central-1,eu-south-1")


def test_a_region_without_a_subscription_and_one_that_delivers_raw_messages(
    deployment, canary_stack
):
    with (
        subscription_of(deployment, FRANKFURT) as (frankfurt, gone),
        subscription_of(deployment, MILAN) as (milan, raw),
    ):
        frankfurt.unsubscribe(SubscriptionArn=gone)
        milan.set_subscription_attributes(
            SubscriptionArn=raw, AttributeName="RawMessageDelivery", AttributeValue="true"
        )
        found = deployment.doctor({"topic": "failed"})
    says(found, topic="The topic in eu-central-1 does not send to the queue")
    says(found, topic="The topic in eu-south-1 sends raw messages")
    topic, queue = canary_stack.further_topic_arns[0], canary_stack.registration_queue_arn
    says(
        found,
        topic=f"aws sns subscribe --region eu-central-1 --topic-arn {topic} --protocol sqs"
        f" --notification-endpoint {queue}",
    )
    says(
        found,
        topic=f"aws sns set-subscription-attributes --region eu-south-1 --subscription-arn {raw}"
        " --attribute-name RawMessageDelivery --attribute-value false",
    )


def test_a_subscription_that_nobody_has_confirmed_and_a_queue_that_refuses_two_regions(
    deployment, monkeypatch
):
    """Which the sandbox does not have: SNS lists such a subscription without an ARN. From one
    region SNS sends under a name that the queue does not know, from the other for another topic.
    """
    topic = deployment.config.aws.registration_topics[FRANKFURT]
    topics = sns_backends[deployment.config.aws.broker.account_id][FRANKFURT]
    [subscription] = (one for one in topics.subscriptions.values() if one.topic.arn == topic)
    monkeypatch.setattr(subscription, "arn", "PendingConfirmation")
    changes = (
        (f"sns.{MILAN}.amazonaws.com", "sns.amazonaws.com"),
        (f":{FRANKFURT}:", ":eu-west-1:"),
    )
    with queue_with_policy(deployment, *changes):
        found = deployment.doctor({"topic": "failed", "queue": "failed"})
    says(found, topic="subscription of the topic in eu-central-1 is not confirmed")
    says(found, topic="aws sns subscribe --region eu-central-1")
    says(found, queue=f"let the topics in {FRANKFURT}, {MILAN} send")


@pytest.mark.parametrize("action", ["SQS:SendMessage", "sqs:*", "*"])
def test_a_queues_policy_may_allow_more_actions(deployment, action):
    with queue_with_policy(deployment, ("sqs:SendMessage", action)):
        deployment.doctor()


def test_many_absent_topics_of_which_some_are_named_and_a_bucket_elsewhere(deployment, monkeypatch):
    """The sandbox has no bucket in another region: its buckets are in every region."""
    topic = deployment.config.aws.registration_topics[FRANKFURT]
    regions = [f"{area}-{number}" for area in ("eu-west", "us-west", "us-east") for number in "12"]
    many = tuple(topic.replace(FRANKFURT, region) for region in [*regions, "sa-east-1"])
    monkeypatch.setattr(vendor_resources, "bucket", lambda _: (301, now()))
    found = deployment.doctor(
        dict.fromkeys(("topic", "queue", "bucket"), "failed"), registration_topic_arns=many
    )
    assert found["topic"]["seen"].count("There is no topic") == 5
    says(found, topic="So it is in 2 further regions.")
    assert "the topics in eu-west-1, eu-west-2, us-west-1" in found["queue"]["seen"]
    says(found, bucket="is not in us-east-1")
    says(found, bucket="AWS_REGION")


def test_s3_sns_and_sqs_that_do_not_answer(deployment, monkeypatch):
    for service in ("IAM", "S3", "SNS", "SQS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://{NOWHERE}")
    warnings = dict.fromkeys(("topic", "queue", "dead_letters"), "warning")
    found = deployment.doctor({"iam": "failed", "bucket": "failed", **warnings})
    assert named(found, "skipped").keys() == {"aws_clock", "templates"}
    says(found, bucket="S3 does not answer.", queue="SQS of us-east-1")


def test_a_broker_that_may_not_look_at_its_queue(deployment):
    """As with the stack of an earlier release: that is no fault of the registration queue, and
    says how to change it.
    """
    denied = {
        "Effect": "Deny",
        "Action": ["sqs:GetQueueAttributes", "sns:GetTopicAttributes"],
        "Resource": "*",
    }
    with hardened(deployment, denied):
        found = deployment.doctor({})
    skipped = named(found, "skipped")
    assert skipped.keys() == {"topic", "queue", "dead_letters"}
    says(found, **dict.fromkeys(skipped, "The broker may not look at it."))
    says(found, **dict.fromkeys(skipped, "cloudformation/broker.yaml"))


def test_each_of_several_faults_is_named(deployment):
    """A setting that is none, a cache that is away, and templates of another name."""
    warnings = dict.fromkeys(("settings", "cache"), "warning")
    found = deployment.doctor(
        {"templates": "failed", **warnings},
        likely_mistakes=("DEPUTY_PROOF_MAXAGE is not a setting.",),
        cache_url=f"redis://{NOWHERE}/0",
        vendor_name="Renamed Vendor",
    )
    says(found, settings="DEPUTY_PROOF_MAXAGE", cache="DEPUTY_CACHE_URL")
    says(found, templates="templates publish")


@contextmanager
def log_of(statement):
    """A database after this statement."""
    with new_database() as url:
        database = Database(url)
        with database.write(SYSTEM) as db:
            db.execute(sqlalchemy.text(statement))
        connection_row(database, tenant_row(database))
        Heartbeat(database, Heard()).beat()
        database.engine.dispose()
        yield url


def test_a_database_role_without_rights_on_a_table_that_an_upgrade_has_made(deployment):
    """Web processes answer 500 then, and are ready. By the guide's statements, before that table
    was there.
    """
    role, owners_url = f"web_{new_id().hex}", deployment.config.database.database_url
    admin = ByHand(owners_url)
    url = make_url(owners_url).set(username=role).render_as_string(hide_password=False)
    admin(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        admin(f"REVOKE INSERT ON external_id_trials FROM {role}")
        found = deployment.doctor({"rights": "failed"}, database_url=url)
        admin(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        deployment.doctor({"database": "failed", "rights": "failed"}, database_url=url)
    finally:
        admin(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    says(found, rights="may not both read and write external_id_trials. Grant it")


def test_months_that_were_not_made_ahead_and_those_that_wait_for_the_operator(deployment):
    month, coming = f"{now():%Y_%m}", f"{now().replace(day=1) + timedelta(days=31):%Y_%m}"
    with log_of(f"ALTER TABLE audit_events DETACH PARTITION audit_events_{month}") as url:
        waiting = deployment.doctor({"audit_log": "warning"}, database_url=url)
        ByHand(url)(f"DROP TABLE audit_events_{coming}")
        not_made = deployment.doctor({"audit_log": "warning"}, database_url=url)
    detached = f"1 tables are detached from the audit log: audit_events_{month}."
    says(waiting, audit_log=detached)
    says(waiting, audit_log="docs/monitoring.md")
    says(not_made, audit_log="no partition for the next month")
    says(not_made, audit_log="worker")


def test_no_background_worker(deployment):
    deployment.worker.end()
    found = deployment.doctor({"workers": "failed"})
    says(found, workers="Start one", registrations="Not looked at: workers comes first.")
    app = create_app(deployment.config)
    text = app.test_cli_runner().invoke(args=["doctor"])
    app.extensions["deputy"].db.engine.dispose()
    lines = text.output.splitlines()
    [place] = [n for n, line in enumerate(lines) if line.split()[:2] == ["failed", "workers"]]
    assert lines[place + 1] == f"    → {found['workers']['next']}", "below what was seen"
    assert text.exit_code == 2


def test_what_is_not_configured_is_skipped_and_is_no_fault(deployment):
    absent = ["cache_url", "registration_queue_url"]
    absent += ["canary_role_arn", "stranger_role_arn"]
    found = deployment.doctor(**dict.fromkeys(absent), registration_topic_arns=())
    skipped = {"prober", "topic", "queue", "dead_letters", "cache"}
    assert named(found, "skipped").keys() == skipped
    says(found, prober="canary.yaml")


def test_a_deployment_without_customers_has_nothing_wrong(deployment):
    with new_database() as url:
        database = Database(url)
        Heartbeat(database, Heard()).beat()
        an_old_event(database)
        database.engine.dispose()
        found = deployment.doctor(database_url=url, audit_retention_days=0)
    assert found["may_assume"]["status"] == "skipped"
    says(found, may_assume="docs/onboarding.md", audit_log="All events are kept.")
