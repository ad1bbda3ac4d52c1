"""Publishing needs the bucket alone; Deputy records what it then finds there, if it is what it
renders itself.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from app import services as composition
from app.aws.template_bucket import TemplateBucket
from app.aws.templates import render_document
from app.background.worker import parts_of, stop_all
from app.errors import ConflictError
from app.permissions.permission_sets import PermissionSet, read_document
from app.store.database import SYSTEM
from app.store.models import AuditEvent, PermissionSetVersion
from sandbox.vendor import VENDOR_ACCOUNT
from tests.cli.test_cli import app_without_settings
from tests.conftest import as_the_pipeline, with_settings
from tests.support.cast import root_client
from tests.support.versions import MORE, READS, WRITES, Vendor
from tests.support.waiting import until


class PublishingVendor:
    """One vendor's folder of permission sets, the deployment's services, and its bucket as
    anybody could change it.
    """

    def __init__(self, aws, vendor, config, folder):
        self._config, self._folder = config, folder
        self.files = Vendor(aws, config.database.database_url, vendor, folder)
        self.name = self.files.reads
        self._s3 = root_client(aws, "s3", VENDOR_ACCOUNT)
        self._started = []

    def start(self):
        """A process with the folder as it is now."""
        config = with_settings(
            self._config, permission_sets=self._folder, default_permission_set=self.name
        )
        self._started.append(composition.Services(config))
        return self._started[-1]

    def publish(self):
        started = self.start()
        with as_the_pipeline():
            started.publication.publish()
        return started

    def record(self, started):
        return started.onboarding.versions.record_published(started.publication.serves)

    def release(self, version, *statements, **more):
        """Publish and record a version."""
        self.files.write(self.name, version, *statements, **more)
        assert self.record(self.publish())

    def refusal(self, version, *statements, **more):
        """The first line of what publishing says; Deputy itself would not record it either."""
        self.files.write(self.name, version, *statements, **more)
        with pytest.raises(ConflictError) as caught:
            self.publish()
        sentence = caught.value.detail.splitlines()[0]
        refusals = self._started[-1].onboarding.versions.refusals()
        assert [*refusals.values()] == [sentence.replace("The bucket", "The database")]
        return sentence

    def put(self, key, body):
        """As a thief of the pipeline's credentials puts it there."""
        self._s3.put_object(
            Bucket=self._config.aws.template_bucket, Key=key, Body=body.encode(), IfNoneMatch="*"
        )

    def keys(self):
        listed = self._s3.list_objects_v2(Bucket=self._config.aws.template_bucket).get(
            "Contents", []
        )
        return [item["Key"] for item in listed if f"/{self.name}/" in item["Key"]]

    def contents(self):
        """Of the recorded versions."""
        with self._started[-1].db.read() as db:
            rows = db.query(PermissionSetVersion).filter_by(name=self.name)
            return {row.version: row.content for row in rows.order_by("version")}

    def recorded(self):
        return [*self.contents()]

    def events(self):
        with self._started[-1].db.read() as db:
            rows = db.query(AuditEvent).filter_by(
                action="permission_set.published", actor_kind="worker"
            )
            return [row.details for row in rows if row.details["permission_set"] == self.name]

    def end(self):
        for started in self._started:
            started.db.engine.dispose()


@pytest.fixture
def publishing_vendor(aws, vendor, config, tmp_path) -> Iterator[PublishingVendor]:
    made = PublishingVendor(aws, vendor, config, tmp_path)
    made.files.write(made.name, 1, READS)
    yield made
    made.end()


# --- publishing ---


def test_publishing_needs_the_templates_settings_and_the_buckets_credentials_alone(
    aws, vendor, publishing_vendor, tmp_path, monkeypatch
):
    given = {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": VENDOR_ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "DEPUTY_BROKER_PRINCIPAL_ARN": vendor.broker_principal_arn,
        "DEPUTY_VENDOR_NAME": "Example Vendor",
        "DEPUTY_TEMPLATE_BUCKET": vendor.template_bucket,
        "DEPUTY_PERMISSION_SETS": str(tmp_path),
    }
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "DEPUTY_"))]:
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        runner = app_without_settings().test_cli_runner()
        done = runner.invoke(args=["templates", "publish"])
    assert done.exit_code == 0, done.output
    kinds = [line.split("/templates/")[1].partition("/")[0] for line in done.stdout.splitlines()]
    assert kinds == ["customer-role", "customer-org", "sets"]
    started = publishing_vendor.start()
    assert started.publication.serves(publishing_vendor.name), (
        "the service renders the same of its own settings"
    )


def test_a_changed_set_needs_a_higher_version(publishing_vendor):
    name = publishing_vendor.name
    publishing_vendor.release(1, READS)
    keys = publishing_vendor.keys()
    assert (
        publishing_vendor.refusal(1, READS, MORE)
        == f"{name}: version: The bucket has version 1, which asks for something else. Raise"
        " version to 2."
    )
    assert publishing_vendor.keys() == keys, "nothing of it is published"
    content = publishing_vendor.contents()[1]
    assert len(content["statements"]) == 1, "nothing of it is recorded"
    assert "administrator" not in content, "the release before can't read it"
    publishing_vendor.release(3, READS, MORE)
    higher = "The bucket has version 3 already. Raise version to 4."
    assert higher in publishing_vendor.refusal(2, MORE)
    publishing_vendor.release(1, READS)  # an earlier release may be published again as it was
    assert publishing_vendor.recorded() == [1, 3]
    documents = {key for key in publishing_vendor.keys() if "/sets/" in key}  # noqa: SIM118
    assert documents == {f"templates/sets/{name}/{version}.json" for version in (1, 3)}


@pytest.mark.parametrize("writing", [1, 3], ids=["an earlier version", "a later version"])
def test_a_name_that_stood_for_reading_never_writes(publishing_vendor, writing):
    """Its connections were made without an approval, and keys that are limited to sets name it."""
    if writing == 1:
        publishing_vendor.release(1, WRITES, access="write")  # to read from then on is no question
    publishing_vendor.release(2, READS)
    assert (
        publishing_vendor.refusal(writing, WRITES, access="write")
        == f"{publishing_vendor.name}: access: The bucket has version 2 with access: read. The"
        " vendor's approval, and keys that are limited to some sets, rely on that word. Give the"
        " file of the set that writes another name, and ask for it with PATCH …/connections/{c}."
    )
    publishing_vendor.release(3, READS, MORE)


def test_two_pipelines_publish_one_version_and_the_second_is_told(publishing_vendor, monkeypatch):
    """Both looked before either had published."""
    monkeypatch.setattr(TemplateBucket, "documents", lambda *_: documents.pop(0))
    documents = [{}]
    publishing_vendor.publish()
    publishing_vendor.files.write(publishing_vendor.name, 1, READS, MORE)
    documents += [{}, {1: a_set(name=publishing_vendor.name).document()}]
    with pytest.raises(ConflictError, match="Raise version to 2"):
        publishing_vendor.publish()


@pytest.mark.parametrize(("version", "body"), [(999_999, "x"), (5, '{"access":"read"}')])
def test_a_planted_document_blocks_nothing_and_is_named(publishing_vendor, version, body):
    publishing_vendor.files.write(publishing_vendor.name, 2, READS, access="write")
    publishing_vendor.put(f"templates/sets/{publishing_vendor.name}/{version}.json", body)
    started = publishing_vendor.publish()
    assert publishing_vendor.record(started)
    [warning] = started.publication.ignored
    assert warning.startswith(
        f"{publishing_vendor.name}: version {version}: The bucket has a document that Deputy"
        " did not"
    )


def test_a_published_version_of_the_bucket_still_refuses_and_the_refusal_shows_a_way_out(
    publishing_vendor,
):
    """Also if a thief wrote it exactly as Deputy does: nobody can tell it from an honest one."""
    last = render_document(a_set(name=publishing_vendor.name, version=999_999))
    publishing_vendor.put(last.key, last.body)
    for access, sentence in (
        (
            "read",
            (
                "version: The bucket has version 999999 already. Give the file of the set another"
                " name."
            ),
        ),
        ("write", "access: The bucket has version 999999 with access: read."),
    ):
        publishing_vendor.files.write(publishing_vendor.name, 2, READS, access=access)
        with pytest.raises(ConflictError) as refused:
            publishing_vendor.publish()
        assert refused.value.detail.startswith(f"{publishing_vendor.name}: {sentence}")
        assert "docs/runbooks.md says how an administrator" in refused.value.detail


def test_only_documents_that_can_refuse_a_version_are_read(publishing_vendor, monkeypatch):
    for version in (1, 2, 4):
        publishing_vendor.put(f"templates/sets/{publishing_vendor.name}/{version}.json", "x")
    bucket = TemplateBucket(publishing_vendor.start().config)
    with as_the_pipeline():
        assert bucket.documents(publishing_vendor.name, 2).keys() == {2, 4}
        monkeypatch.setattr("app.aws.template_bucket._DOCUMENTS_MAX", 3)
        assert bucket.documents(publishing_vendor.name, 1).keys() == {1, 2, 4}
        monkeypatch.setattr("app.aws.template_bucket._DOCUMENTS_MAX", 2)
        with pytest.raises(
            ConflictError, match=r"The bucket has more than 1,000 objects below templates/sets/"
        ):
            bucket.documents(publishing_vendor.name, 1)


# --- recording ---


def test_a_version_is_recorded_with_one_event_once_the_bucket_serves_all_of_it(publishing_vendor):
    before = publishing_vendor.start()
    assert not publishing_vendor.record(before)
    assert publishing_vendor.recorded() == []
    assert publishing_vendor.events() == []
    publishing_vendor.publish()
    for started in (before, publishing_vendor.start(), publishing_vendor.start()):
        assert publishing_vendor.record(started)
    assert publishing_vendor.recorded() == [1]
    assert publishing_vendor.events() == [
        {"permission_set": publishing_vendor.name, "permission_set_version": 1, "access": "read"}
    ]
    publishing_vendor.release(1, READS | {"why": "In other words."}, title="Another title")
    assert publishing_vendor.contents()[1]["statements"][0]["why"] == "In other words."
    assert len(publishing_vendor.events()) == 1, "other words are no other version"


@pytest.mark.parametrize(
    ("part", "body"),
    [("document", "{0} "), ("document", '{{"access": "write", "version": 1}}'), ("role", "{0} ")],
)
def test_what_somebody_else_put_there_is_never_recorded(publishing_vendor, part, body):
    started = publishing_vendor.start()
    publication = started.publication
    template = (
        render_document(started.onboarding.sets[publishing_vendor.name])
        if part == "document"
        else publication.rendered[publishing_vendor.name].role
    )
    publishing_vendor.put(template.key, body.format(template.body))
    with pytest.raises(ConflictError):
        publishing_vendor.publish()
    if part == "role":  # and all else is as it should be
        publishing_vendor.put(
            render_document(started.onboarding.sets[publishing_vendor.name]).key,
            publication.rendered[publishing_vendor.name].document.body,
        )
    assert not publishing_vendor.record(started)
    assert publishing_vendor.recorded() == []
    assert publishing_vendor.events() == []


def test_a_version_that_deputy_knows_otherwise_is_not_recorded_whatever_the_bucket_has(
    publishing_vendor,
):
    """The bucket is another one, or it was emptied."""
    started = publishing_vendor.start()
    with started.db.write(SYSTEM) as db:
        content = asdict(a_set(name=publishing_vendor.name, version=2))
        db.add(PermissionSetVersion(name=publishing_vendor.name, version=2, content=content))
    started = publishing_vendor.publish()
    assert publishing_vendor.record(started), "nothing is left to do"
    assert publishing_vendor.recorded() == [2]
    assert publishing_vendor.events() == []
    [finding] = [finding for name, finding in started.health.findings(None) if name == "templates"]
    assert (
        finding.seen
        == f"Published, and not recorded: {publishing_vendor.name}: version: The database has"
        " version 2 already. Raise version to 3."
    )


def test_of_the_bucket_no_more_is_read_than_could_be_right(publishing_vendor, monkeypatch):
    started = publishing_vendor.start()
    key = f"templates/sets/{publishing_vendor.name}/1.json"
    publishing_vendor.put(key, "[" * 1_000_000)
    with as_the_pipeline():
        [text] = TemplateBucket(started.config).documents(publishing_vendor.name, 1).values()
    assert len(text) == 65_536
    assert not started.publication.serves(publishing_vendor.name)


def test_a_background_worker_records_what_is_published_after_its_start(
    publishing_vendor, monkeypatch
):
    monkeypatch.setattr("app.background.worker._PUBLISHED_AGAIN", 0.05)
    started = publishing_vendor.start()
    ended = []
    [part] = [
        part for part in parts_of(started, lambda: ended.append(True)) if part.name == "publication"
    ]
    part.start()
    try:
        publishing_vendor.publish()
        until(lambda: publishing_vendor.recorded() == [1], "the version is recorded")
    finally:
        stop_all([part])
    assert not ended
    assert len(publishing_vendor.events()) == 1


def test_a_bucket_that_does_not_answer_records_nothing(publishing_vendor, monkeypatch):
    publishing_vendor.publish()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert not publishing_vendor.record(publishing_vendor.start())


# --- the document ---


def a_set(**changes):
    fields = {"name": "x", "version": 1, "title": "x", "description": "x", "access": "read"}
    listed = {
        "Sid": "A",
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": "*",
        "why": "x",
    }
    fields |= {"statements": [listed, listed | {"Sid": "B"}], "managed_policies": []}
    return PermissionSet(**(fields | {"parameters": []} | changes))


STATEMENT = a_set().statements[0]


def test_the_documents_form_never_changes():
    """Documents of earlier releases are compared with those of this one."""
    expected = (
        '{\n "access": "read",\n "managed_policies": [],\n "parameters": {},\n "permission_set":'
        ' "x",\n "statements": {\n  "A": {\n   "Action": [\n    "s3:GetObject",\n   '
        ' "s3:ListBucket"\n   ],\n   "Condition": null,\n   "Effect": [\n    "Allow"\n   ],\n  '
        ' "Resource": [\n    "*"\n   ]\n  }\n },\n "version": 1\n}\n'
    )
    assert a_set(statements=(STATEMENT,)).document() == expected
    assert read_document(expected, "x", 1) == a_set(
        title="",
        description="",
        statements=[json.loads(expected)["statements"]["A"] | {"Sid": "A"}],
    )


@pytest.mark.parametrize(
    "text",
    [
        "[" * 65_536,
        a_set().document()[:-1],
        a_set(name="y").document(),
        a_set(access="full").document(),
        json.dumps(json.loads(a_set().document()) | {"more": 1}, sort_keys=True, indent=1) + "\n",
    ],
    ids=lambda text: text[-20:],
)
def test_a_document_in_another_form_is_none(text):
    assert read_document(text, "x", 1) is None
