"""The template as each deployment renders it, and as it lies in the bucket: readable by
everybody, never overwritten.
"""

import hashlib
import re
import uuid
from dataclasses import replace

import pytest
import requests
import yaml
from cfnlint.api import ManualArgs, lint
from cfnlint.decode import decode_str

from app.aws import templates
from app.aws.regions import partition_of, regions
from app.aws.template_bucket import Published, Template, TemplateBucket
from app.aws.templates import render, render_organization
from app.factory import create_app
from app.ids import Broker
from app.permissions import permission_sets
from sandbox.vendor import TEMPLATE_BUCKET, VENDOR_ACCOUNT
from tests.conftest import make_config, with_settings
from tests.support.cast import root_client
from tests.support.databases import NOWHERE, new_database

SETS = permission_sets.load()
INVENTORY = SETS["inventory"]
OTHER_ACCOUNT = "123456789012"


def config(partition="aws", account=OTHER_ACCOUNT, **changes):
    broker = Broker.parse(f"arn:{partition}:iam::{account}:role/service/AcmeBroker")
    accounts = frozenset({account})
    return make_config(
        NOWHERE,
        **({"broker": broker, "vendor_name": "Acme 24", "vendor_account_ids": accounts} | changes),
    )


def parsed(template):
    found, faults = decode_str(template.body)
    assert faults == []
    return found


def role_of(template):
    return parsed(template)["Resources"]["Role"]["Properties"]


def accounts_in(body):
    """What looks like an account's id. A version may hold twelve digits in a row too, among its
    other sixteen.
    """
    return re.findall(r"(?<![0-9a-f])\d{12}(?![0-9a-f])", body)


every_set = pytest.mark.parametrize("chosen", SETS.values(), ids=SETS)


# --- rendering ---


def test_cfn_lint_finds_nothing_wrong_with_rendered_templates():
    for template, region in (
        (render(config(), INVENTORY), "eu-west-1"),
        (organization(SETS["bucket-sync"], partition="aws-us-gov"), "us-gov-west-1"),
    ):
        found = lint(template.body, config=ManualArgs(regions=[region]))
        assert [str(fault) for fault in found if fault.rule.severity != "informational"] == []


@every_set
@pytest.mark.parametrize("partition", ["aws", "aws-us-gov", "aws-cn"])
def test_the_broker_is_baked_in_and_the_external_id_is_asked_for(chosen, partition):
    template = render(config(partition), chosen)
    [statement] = role_of(template)["AssumeRolePolicyDocument"]["Statement"]
    assert statement == yaml.safe_load(f"""
        Effect: Allow
        Principal: {{AWS: "arn:{partition}:iam::{OTHER_ACCOUNT}:root"}}
        Action: sts:AssumeRole
        Condition:
          StringEquals:
            sts:ExternalId:
              Fn::If:
              - HasNextExternalId
              - [{{Ref: ExternalId}}, {{Ref: NextExternalId}}]
              - {{Ref: ExternalId}}
          ArnEquals:
            aws:PrincipalArn: "arn:{partition}:iam::{OTHER_ACCOUNT}:role/service/AcmeBroker"
          DateLessThan:
            Fn::If:
            - HasAccessUntil
            - aws:CurrentTime: {{Ref: AccessUntil}}
            - {{Ref: AWS::NoValue}}
    """)
    parameters = parsed(template)["Parameters"]
    assert list(parameters) == [
        *("ExternalId", "NextExternalId", "RoleName", "RegistrationTopicArn", "RegistrationToken"),
        *("AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn"),
    ]


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "us-east-1"), ("aws-us-gov", "us-gov-west-1"), ("aws-cn", "cn-north-1")],
)
def test_a_link_can_name_no_topic_but_the_vendors(partition, region):
    own = render(config(partition), INVENTORY)
    for template in (own, render_organization(config(partition), own, INVENTORY)):
        pattern = parsed(template)["Parameters"]["RegistrationTopicArn"]["AllowedPattern"]
        accepted = {
            topic: bool(re.fullmatch(pattern, topic))
            for topic in (
                "",
                f"arn:{partition}:sns:{region}:{OTHER_ACCOUNT}:registrations",
                f"arn:{partition}:sns:{region}:444455556666:registrations",
                f"arn:aws-iso:sns:{region}:{OTHER_ACCOUNT}:registrations",
                f"arn:{partition}:lambda:{region}:{OTHER_ACCOUNT}:function:f",
            )
        }
        assert list(accepted.values()) == [True, True, False, False, False]


@every_set
def test_no_example_is_left(chosen):
    role, whole = render(config(), chosen).body, organization(chosen).body
    for example in ("111122223333", "DeputyBroker", "Example", "example"):
        assert example not in role
        assert example not in whole
    assert "customer-role.yaml: " not in whole, "a mark of the source"
    assert accounts_in(role) == [OTHER_ACCOUNT] * 3
    assert set(accounts_in(whole)) == {OTHER_ACCOUNT}
    assert "Gives Acme 24 access to this account" in role


@every_set
def test_the_permissions_are_the_sets_and_stay_right_in_any_partition(chosen):
    [policy, *_] = role_of(render(config(), chosen))["Policies"]
    found = policy["PolicyDocument"]["Statement"]
    assert len(found) == len(chosen.statements)
    assert substituted(found, "aws-xy") == chosen.policy("aws-xy")["Statement"]


def substituted(value, partition):
    """What CloudFormation makes of Fn::Sub. A variable of its own that stands outside one would
    stay as it is.
    """
    if isinstance(value, dict):
        if list(value) == ["Fn::Sub"]:
            return value["Fn::Sub"].replace("${AWS::Partition}", partition)
        return {key: substituted(item, partition) for key, item in value.items()}
    if isinstance(value, list):
        return [substituted(item, partition) for item in value]
    assert "${AWS::" not in str(value)
    return value


@pytest.mark.parametrize("seconds", [900, 3600, 43_200])
def test_a_roles_own_maximum_is_one_that_iam_accepts(seconds):
    """IAM takes 3,600 to 43,200; a deployment may hand out less."""
    made = role_of(render(config(max_session_seconds=seconds), INVENTORY))["MaxSessionDuration"]
    assert max(seconds, 3600) == made


# --- the name in the bucket ---


def test_the_version_is_of_the_content_and_is_in_it():
    role, whole = render(config(), INVENTORY), organization(INVENTORY)
    for kind, template in (("role", role), ("org", whole)):
        assert re.fullmatch(r"[0-9a-f]{16}", template.version)
        assert template.key == f"templates/customer-{kind}/inventory/{template.version}.yaml"
        source = template.body.replace(template.version, "example-version")
        assert hashlib.sha256(source.encode()).hexdigest().startswith(template.version)
        found = parsed(template)
        assert found["Outputs"]["TemplateVersion"]["Value"] == role.version
        registration = found["Resources"]["Registration"]["Properties"]
        assert registration["TemplateVersion"] == role.version
    assert found["Outputs"]["OrganizationTemplateVersion"]["Value"] == whole.version


@pytest.mark.parametrize("version", ["1234567890123456", "0123456701234567", "123456789012e456"])
def test_a_version_that_looks_like_a_number_stays_text(version):
    """As one hash in two thousand does, and YAML reads it as a number where it stands without
    quotes.
    """
    role, whole = (
        parsed(template._replace(body=template.body.replace(template.version, version)))
        for template in (render(config(), INVENTORY), organization(INVENTORY))
    )
    assert role["Outputs"]["TemplateVersion"]["Value"] == version
    assert role["Resources"]["Registration"]["Properties"]["TemplateVersion"] == version
    assert whole["Outputs"]["OrganizationTemplateVersion"]["Value"] == version


def test_other_content_has_another_name_and_the_same_content_the_same():
    chosen = INVENTORY
    [first, *rest] = chosen.statements
    wider = first | {"Action": [*first["Action"], "s3:GetBucketCORS"]}
    user = Broker.parse(f"arn:aws:iam::{OTHER_ACCOUNT}:user/AcmeBroker")
    role = Broker.parse(f"arn:aws:iam::{OTHER_ACCOUNT}:role/AcmeBroker")
    others = (
        config(),
        config(vendor_name="Acme 25"),
        config(account="123456789013"),
        config(broker=role),
        config("aws-us-gov"),
        config(broker=user),
        config(broker=user, max_session_seconds=43_200),
    )
    keys = [render(changed, chosen).key for changed in others]
    keys += [render_organization(made, render(made, chosen), chosen).key for made in others[:2]]
    keys.append(render(config(), replace(chosen, statements=(wider, *rest))).key)
    assert len({*keys}) == len(keys)
    same = config(public_url="https://x.example", secret_keys=("k" * 40,), region="eu-west-1")
    assert render(same, chosen) == render(config(), chosen)


@pytest.mark.parametrize(
    ("source", "mark", "instead"),
    [
        (
            "_SOURCE",
            "role/DeputyBroker",
            "role/Other",
        ),  # rather none than one that trusts the example's broker
        ("_SOURCE", "# permissions: end\n", ""),
        ("_ORGANIZATION_SOURCE", "  # customer-role.yaml: Resources\n", "\n"),
        ("_ORGANIZATION_SOURCE", "TemplateBody: example-template-body\n", "\n"),
    ],
)
def test_a_source_without_what_is_to_be_replaced_is_not_rendered(
    tmp_path, monkeypatch, source, mark, instead
):
    path = tmp_path / "template.yaml"
    path.write_text(getattr(templates, source).read_text().replace(mark, instead))
    monkeypatch.setattr(templates, source, path)
    with pytest.raises(ValueError):
        organization(INVENTORY)


# --- the organisation's ---


def organization(chosen, **changes):
    made = config(**changes)
    return render_organization(made, render(made, chosen), chosen)


@every_set
def test_every_account_gets_the_template_of_a_single_one_to_the_letter(chosen):
    """The launching account, which a service-managed StackSet never reaches, gets the same role and
    registration. All is small enough for every way to launch it: 51,200 bytes for --template-body
    and for the body of a StackSet, 1 MB for a template in S3.
    """
    template, organization_template = render(config(), chosen), organization(chosen)
    single, whole = parsed(template), parsed(organization_template)
    assert whole["Resources"]["Accounts"]["Properties"]["TemplateBody"] == template.body
    assert {name: whole["Resources"][name] for name in single["Resources"]} == single["Resources"]
    assert list(whole["Resources"]) == ["Role", "Registration", "Accounts"]
    assert whole["Conditions"].items() >= single["Conditions"].items()
    assert whole["Outputs"].items() >= single["Outputs"].items()
    assert len(template.body.encode()) < 51_200
    assert len(organization_template.body.encode()) < 1_000_000


# --- publishing ---


@pytest.fixture
def pipeline(aws, vendor, monkeypatch):
    """The vendor's deploy pipeline: with credentials that may write to the bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", VENDOR_ACCOUNT)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
    return aws


@pytest.fixture
def unpublished(aws, vendor):
    """A deployment with a bucket of its own, which has the policy of broker.yaml and is empty."""
    name = f"deputy-{uuid.uuid4().hex}"
    s3 = root_client(aws, "s3", VENDOR_ACCOUNT)
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    policy = s3.get_bucket_policy(Bucket=TEMPLATE_BUCKET)["Policy"]
    s3.put_bucket_policy(Bucket=name, Policy=policy.replace(TEMPLATE_BUCKET, name))
    with new_database() as url:
        yield make_config(url, vendor_name=f"Vendor {uuid.uuid4().hex}", template_bucket=name)


def objects(aws, config, key):
    """Every version that the deployment's bucket has of this key."""
    s3 = root_client(aws, "s3", VENDOR_ACCOUNT)
    return s3.list_object_versions(Bucket=config.aws.template_bucket, Prefix=key).get(
        "Versions", []
    )


def test_anybody_reads_what_was_published_and_it_is_never_overwritten(pipeline, unpublished):
    """Links to an older template so stay valid."""
    bucket, template = TemplateBucket(unpublished), render(unpublished, INVENTORY)
    newer = render(
        with_settings(unpublished, vendor_name=f"{unpublished.vendor.vendor_name[:40]} 2"),
        INVENTORY,
    )
    url = bucket.url(template)
    assert url.endswith(f"/{unpublished.aws.template_bucket}/{template.key}")
    assert requests.get(url, timeout=5).status_code in {403, 404}
    assert [bucket.publish(each) for each in (template, newer)] == [Published.YES] * 2
    [first] = objects(pipeline, unpublished, template.key)
    assert bucket.publish(template) is Published.ALREADY
    assert bucket.publish(template._replace(body="evil: true")) is Published.DIFFERS
    assert objects(pipeline, unpublished, template.key) == [first]
    for each in (template, newer):
        answer = requests.get(bucket.url(each), timeout=5)
        assert (answer.status_code, answer.text) == (200, each.body)
    assert answer.headers["Content-Type"] == "text/yaml; charset=utf-8"
    assert "immutable" in answer.headers["Cache-Control"]
    assert requests.get(url.replace(template.key, ""), timeout=5).status_code == 403


# --- by the command ---


def command(app, *options):
    return app.test_cli_runner().invoke(args=["templates", "publish", *options])


def states(done):
    """What --check says of each template."""
    return [
        line.rsplit("  ", 1)[0].strip() for line in done.output.splitlines() if "  http" in line
    ]


def test_the_command_checks_and_publishes_every_set_and_may_be_repeated(
    pipeline, unpublished, monkeypatch
):
    app, count = create_app(unpublished), 3 * len(SETS)
    done = command(app, "--check")
    assert (done.exit_code, set(states(done))) == (1, {"is missing, or not public"})
    assert "Run: flask --app wsgi templates publish" in done.output
    assert objects(pipeline, unpublished, "templates/") == [], "a check publishes nothing"
    first, second = command(app), command(app)
    assert (first.exit_code, second.exit_code) == (0, 0)
    urls = [line.split() for line in first.output.splitlines()]
    kinds = ("customer-role", "customer-org", "sets")
    parts = [f"/{kind}/{name}/" for kind in kinds for name in SETS]
    assert [words[0] for words in urls] == ["published"] * count
    assert [line.split("  ")[0] for line in second.output.splitlines()] == ["there already"] * count
    for (_, url), part in zip(urls, parts, strict=True):
        assert part in url
        assert requests.get(url, timeout=5).status_code == 200
    with monkeypatch.context() as patch:
        for name in (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ):
            patch.delenv(name)
        done = command(app, "--check")
        assert (done.exit_code, states(done)) == (0, ["published"] * count), (
            "it needs no credentials"
        )
        done = command(app)
        assert (done.exit_code, done.output) == (
            1,
            "Error: The bucket can't be written to: Unable to locate credentials\n",
        )
    plant_a_document(pipeline, unpublished)
    done = command(app)
    assert done.exit_code == 0, "it keeps nothing back"
    assert (
        "Warning: inventory: version 999999: The bucket has a document that Deputy did not write."
        in done.stderr
    )
    assert "Warning" not in done.stdout
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done = command(app, "--check")
    assert done.exit_code == 1
    assert done.output.startswith("Error: The bucket can't be read:")


def plant_a_document(aws, config):
    """Of a later version of the set, as somebody else writes it."""
    s3 = root_client(aws, "s3", VENDOR_ACCOUNT)
    s3.delete_bucket_policy(Bucket=config.aws.template_bucket)
    key = "templates/sets/inventory/999999.json"
    s3.put_object(Bucket=config.aws.template_bucket, Key=key, Body=b"x")


def test_without_the_bucket_the_command_says_what_is_wrong(pipeline, unpublished):
    done = command(create_app(with_settings(unpublished, template_bucket="no-such-bucket-here")))
    [line] = done.output.splitlines()
    assert (done.exit_code, "NoSuchBucket" in line) == (1, True)
    assert line.startswith("Error: The bucket can't be written to:")


def test_the_broker_is_told_whose_credentials_publish(unpublished):
    done = command(create_app(unpublished))
    assert done.exit_code == 1
    assert "AccessDenied" in done.output
    assert "the policy in broker.yaml's output TemplatePublisherPolicyArn" in done.output


def test_other_content_under_a_templates_name_fails_the_command(pipeline, unpublished):
    """A thief of the pipeline's credentials knew the name beforehand: it is a hash of what is in
    the repository.
    """
    template = render(unpublished, INVENTORY)
    TemplateBucket(unpublished).publish(template._replace(body=f"{template.body} "))
    app = create_app(unpublished)
    for _ in range(2):
        done = command(app)
        assert done.exit_code == 1
        said, *addresses = done.output.splitlines()
        assert said.startswith(
            "Error: The bucket has other content than this release's under the addresses below"
        )
        assert addresses == [TemplateBucket(unpublished).url(template)]
        assert objects(pipeline, unpublished, "templates/sets/") == [], "no version is published"
    done = command(app, "--check")
    assert (done.exit_code, states(done).count("differs from this configuration's")) == (1, 1)
    assert (states(done).count("published"), states(done).count("is missing, or not public")) == (
        3,
        2,
    )


def test_links_name_the_buckets_ordinary_address(monkeypatch):
    """Whichever endpoints Deputy uses itself: CloudFormation has to open it."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"):
        monkeypatch.setenv(name, "true")
    url = TemplateBucket(make_config(NOWHERE)).url(Template("1", "templates/x.yaml", ""))
    assert re.fullmatch(r"https://s3(\.us-east-1)?\.amazonaws\.com/[^/]+/templates/x\.yaml", url)


# --- regions ---


def test_a_region_belongs_to_a_partition():
    """Also one that botocore doesn't know yet, by its name."""
    known = {"eu-west-1": "aws", "us-gov-east-1": "aws-us-gov", "cn-northwest-1": "aws-cn"}
    for region, partition in (known | {"us-west-99": "aws", "xx-nowhere-9": None}).items():
        assert partition_of(region) == partition
    for region, partition in known.items():
        assert [name for name in sorted(set(known.values())) if region in regions(name)] == [
            partition
        ]
