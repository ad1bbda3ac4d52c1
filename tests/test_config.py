"""The settings: read strictly, all mistakes told at once, and nothing secret ever shown."""

import hashlib
import os
import re
import secrets
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

from app.config import Config, ConfigError
from app.factory import create_app
from app.ids import Broker
from app.settings.setting_types import collect_settings
from app.settings.valid_values import OWN_PATHS, looks_random
from tests.conftest import make_config
from tests.support.databases import NOWHERE

ROOT = Path(__file__).parent.parent
ROLE = "arn:aws:iam::111122223333:role/service/DeputyBroker"
USER = "arn:aws:iam::111122223333:user/deputy-broker"
KEY = "first-secret-key-0123456789-abcdefgh"
BOOTSTRAP = "dpk_0123456789abcdef_Abcdefghij0123456789_-ABCDEFGHIJ0123456789x"
TOPIC = "arn:aws:sns:us-east-1:111122223333:registrations"
PUBLIC = "https://deputy.example.com"
QUEUE = "https://sqs.us-east-1.amazonaws.com/111122223333/registrations"

GOOD = {
    "DEPUTY_DATABASE_URL": "postgresql+psycopg://deputy:hunter2@db.internal/deputy",
    "DEPUTY_SECRET_KEYS": KEY,
    "DEPUTY_BROKER_PRINCIPAL_ARN": ROLE,
    "DEPUTY_VENDOR_NAME": "Example Vendor",
    "DEPUTY_TEMPLATE_BUCKET": "deputy-templates",
    "AWS_REGION": "eu-west-1",
}


@pytest.fixture
def read(monkeypatch):
    """`read(NAME=value)`: the settings of a good environment with these changes; None removes."""

    def read(**changes):
        for name in [*os.environ]:
            if name.startswith(("DEPUTY_", "AWS_")):
                monkeypatch.delenv(name)
        for name, value in (GOOD | changes).items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return Config.from_environment()

    return read


def problems(read, **changes):
    """Variable → what is said about it."""
    with pytest.raises(ConfigError) as caught:
        read(**changes)
    return dict(line.split(": ", 1) for line in str(caught.value).splitlines())


def test_a_whole_environment_is_read(read):
    config = read(
        DEPUTY_SECRET_KEYS=f"{KEY},{KEY[::-1]}",
        DEPUTY_VENDOR_ACCOUNT_IDS="222233334444,333344445555",
        DEPUTY_PUBLIC_URL="https://deputy.example.com/",
        DEPUTY_CONSOLE_URL="http://localhost:4566/console/",
        DEPUTY_VENDOR_URL="https://app.example.com/aws/",
        DEPUTY_ROLE_PREFIX="acme-",
        DEPUTY_MAX_SESSION_SECONDS="1800",
        DEPUTY_BOOTSTRAP_KEY=BOOTSTRAP,
        DEPUTY_LOG_LEVEL="WARNING",
    )
    assert config == Config.of(
        database_url=GOOD["DEPUTY_DATABASE_URL"],
        secret_keys=(KEY, KEY[::-1]),
        broker=Broker(ROLE, "aws", "111122223333", is_role=True, name="DeputyBroker"),
        vendor_account_ids=frozenset({"111122223333", "222233334444", "333344445555"}),
        vendor_name="Example Vendor",
        template_bucket="deputy-templates",
        region="eu-west-1",
        public_url="https://deputy.example.com",
        console_url="http://localhost:4566/console",
        vendor_url="https://app.example.com/aws/",
        role_prefix="acme-",
        max_session_seconds=1800,
        bootstrap_key=BOOTSTRAP,
        log_level="WARNING",
    )


def test_what_may_be_left_out_has_a_safe_default(read):
    config = read()
    assert (config.aws.role_prefix, config.aws.max_session_seconds) == ("deputy-", 3600)
    assert config.database.audit_retention_days == 400
    assert config.aws.vendor_account_ids == {"111122223333"}, "the broker's own is the vendor's"
    assert config.service.bootstrap_key is None


def test_no_number_is_so_large_that_its_safeguard_is_gone(read):
    settings = collect_settings(Config).values()
    numbers = [setting.variable for setting in settings if type(setting.default) is int]
    assert len(numbers) > 10
    for variable in numbers:
        assert [*problems(read, **{variable: "1000001"})] == [variable]
    assert read(DEPUTY_PROOF_MAX_AGE="604800").proofs.proof_max_age == 604_800
    assert read(DEPUTY_AUDIT_RETENTION_DAYS="0").database.audit_retention_days == 0, "no limit"


def test_a_tenants_rate_rises_with_that_of_a_key(read):
    assert read().limits.tenant_issue_rate == 1000
    assert read(DEPUTY_ISSUE_RATE="300").limits.tenant_issue_rate == 1500
    assert read(DEPUTY_ISSUE_RATE="300", DEPUTY_TENANT_ISSUE_RATE="7").limits.tenant_issue_rate == 7


def test_every_bad_variable_is_told_at_once(read):
    bad = {name: values[-1] for name, values in BAD.items()}
    assert sorted(problems(read, **bad)) == sorted(bad)
    assert sorted(problems(read, **dict.fromkeys(GOOD))) == sorted(GOOD)


BAD = yaml.safe_load(r"""
DEPUTY_DATABASE_URL: ["", "mysql://x", "sqlite:///deputy.sqlite3",
  "postgresql://u@h/d", "postgresql+psycopg://u:p@h:port/d",
  "postgresql+psycopg://u:p@h/d?sslmod=require"]
DEPUTY_CACHE_URL: ["redis://h:port/0", "rediss://h?ssl_cert_req=none", "redis://h?socket_timeout=x",
  "rediss://h?ssl_cert_reqs=never"]
DEPUTY_SECRET_KEYS: ["", "first-secret-key-0123456789-abcdefgh,",
  "first-secret-key-0123456789-abcdefgh,short",
  "first-secret-key-0123456789-abcdefgh, second-secret-key-0123456789-abcdefg"]
DEPUTY_BROKER_PRINCIPAL_ARN: ["", "arn:aws:iam::111122223333:root",
  "arn:aws:iam::111122223333:role/x\n", "arn:aws:iam::１１１１２２２２３３３３:role/x"]
DEPUTY_VENDOR_NAME: ["", " ", "Vendor\"\nEvil: true",
  "65 letters are more than AWS's templates and roles' tags can take"]
DEPUTY_TEMPLATE_BUCKET: ["", "bucket/with/keys"]
DEPUTY_VENDOR_ACCOUNT_IDS: ["111122223333,", "１１１１２２２２３３３３"]
DEPUTY_PUBLIC_URL: ["", "https://", "https://[half", "https://:8000",
  "https://deputy.example.com/?x=1", "https://deputy.example.com:port",
  "https://deputy.example.com:99999", "https://a:secret@deputy.example.com",
  "https://deputy example.com", "https://deputy.example\n.com"]
DEPUTY_VENDOR_URL: ["https://\"><b>", "https://example.com/our app"]
DEPUTY_SUPPORT_URL: ["javascript:alert(1)", "mailto:help@example.com"]
DEPUTY_PRIVACY_URL: ["https://example.com/privacy?user=1"]
DEPUTY_VENDOR_LOGO: ["/nonexistent/logo.png"]
DEPUTY_VENDOR_COLOR: ["red", "#ffd60a"]
DEPUTY_RETURN_URLS: ["example.com", "https://example.com/aws,"]
DEPUTY_CONSOLE_URL: ["javascript:alert(1)"]
DEPUTY_ROLE_PREFIX: ["a/b", "ü"]
DEPUTY_IMPORTED_ROLE_NAMES: ["a/b", "Reader,ü", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u"]
DEPUTY_MAX_SESSION_SECONDS: ["", "true", "3600.0", "0", "-900", "899", "43201"]
DEPUTY_AUDIT_RETENTION_DAYS: ["-1", "36501", "29", "400d"]
DEPUTY_PROOF_MAX_AGE: ["604801"]
DEPUTY_REPROVE_EVERY: ["604801"]
DEPUTY_METRICS_BIND: ["9090", ":9090", "host:", "host:0", "host:70000", "host:x"]
DEPUTY_PROXY_HOPS: ["-1", "11", "one"]
DEPUTY_LOG_LEVEL: ["", "info"]
AWS_REGION: ["", "nowhere!"]
""")  # noqa: RUF001  digits, to Python


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_and_only_it(read, name):
    for value in BAD[name]:
        assert [*problems(read, **{name: value})] == [name], value


def test_a_public_url_may_have_any_form_that_hosts_have_and_a_path(read):
    for url in ("https://[2001:db8::1]:8443", "https://bücher.example", "http://deputy_web:8000"):
        assert read(DEPUTY_PUBLIC_URL=url).service.public_url == url
    for given, path in (("/", ""), ("/tools/deputy/", "/tools/deputy"), ("/v1x/~a.b", "/v1x/~a.b")):
        config = read(DEPUTY_PUBLIC_URL=PUBLIC + given)
        assert (config.service.public_url, config.service.public_path) == (PUBLIC + path, path)


def test_a_database_password_may_hold_what_sqlalchemy_reads(read):
    url = "postgresql+psycopg://u:p#w/?x@h:5432/d"
    assert read(DEPUTY_DATABASE_URL=url).database.database_url == url


def test_empty_means_none_where_none_is_meant(read):
    config = read(DEPUTY_VENDOR_ACCOUNT_IDS="", DEPUTY_CONSOLE_URL="", DEPUTY_ROLE_PREFIX="")
    assert config.aws.vendor_account_ids == {"111122223333"}
    assert not config.aws.console_url
    assert config.aws.role_prefix == ""


def test_the_region_may_have_its_older_name(read):
    assert read(AWS_REGION=None, AWS_DEFAULT_REGION="eu-north-1").aws.region == "eu-north-1"
    assert read(AWS_REGION="eu-west-1", AWS_DEFAULT_REGION="eu-north-1").aws.region == "eu-west-1"


# --- registration ---


def test_topics_and_their_queue(read):
    config = read(DEPUTY_REGISTRATION_TOPIC_ARN=TOPIC, DEPUTY_REGISTRATION_QUEUE_URL=QUEUE)
    assert config.aws.registration_topics == {"us-east-1": TOPIC}
    topics = {region: TOPIC.replace("us-east-1", region) for region in ("sa-east-1", "eu-west-1")}
    config = read(
        DEPUTY_REGISTRATION_TOPIC_ARN=",".join(topics.values()), DEPUTY_REGISTRATION_QUEUE_URL=QUEUE
    )
    assert [*config.aws.registration_topics.items()] == [*topics.items()], "in this order"
    assert config.aws.registration_queue_url == QUEUE
    for nothing in (None, ""):
        config = read(DEPUTY_REGISTRATION_TOPIC_ARN=nothing, DEPUTY_REGISTRATION_QUEUE_URL=nothing)
        assert config.aws.registration_topic_arns == ()
        assert config.aws.registration_queue_url is None
        assert config.aws.registration_topics == {}


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.ap-south-1.amazonaws.com/111122223333/q", "ap-south-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q", "cn-north-1"),
        ("https://vpce-1.sqs.us-gov-west-1.vpce.amazonaws.com/111122223333/q", "us-gov-west-1"),
        ("http://localhost:4566/111122223333/q", "eu-west-1"),
    ],
)
def test_the_queue_is_in_the_region_of_its_url_or_in_that_of_deputy(read, url, region):
    config = read(
        AWS_REGION="eu-west-1",
        DEPUTY_REGISTRATION_TOPIC_ARN=TOPIC,
        DEPUTY_REGISTRATION_QUEUE_URL=url,
    )
    assert config.aws.registration_queue_region == region


TOPICS = yaml.safe_load("""
"arn:aws:sqs:us-east-1:111122223333:x": SNS topic
"arn:aws:sns:us-east-1:1111:x": SNS topic
"arn:aws:sns:us-east-1:111122223333:registrations:subscription": SNS topic
"arn:aws:sns:us-east-1:111122223333:registrations.fifo": SNS topic
"arn:aws:sns:cn-north-1:111122223333:x": not in the partition aws.
"arn:aws-cn:sns:us-gov-west-1:111122223333:x": not in the partition aws-cn.
"arn:aws-cn:sns:cn-north-1:111122223333:x": the partition of DEPUTY_BROKER_PRINCIPAL_ARN
"arn:aws:sns:us-east-1:444455556666:x": the account of DEPUTY_BROKER_PRINCIPAL_ARN
null: set both or neither
""")
TOPICS |= {
    f"{TOPIC}, {TOPIC.replace('us-east-1', 'eu-west-1')}": "separated by commas",
    f"{TOPIC},": "separated by commas",
    f"{TOPIC},{TOPIC}2": "several topics in us-east-1",
    f"{TOPIC},arn:aws-cn:sns:cn-north-1:111122223333:x": "in cn-north-1 must be in the partition",
    f"{TOPIC},arn:aws:sns:eu-west-1:444455556666:x": "in eu-west-1 must be in the account",
    ",".join(TOPIC.replace("east-1", f"east-{n}") for n in range(41)): "at most 40 ARNs",
}
QUEUES = yaml.safe_load("""
null: set both or neither
sqs: URL
"ftp://x/q": URL
"https://sqs.us-east-1.amazonaws.com/1/q?x=1": URL
""")


def test_the_topic_is_one_in_the_brokers_partition_and_account_and_has_a_queue(read):
    topic, queue = "DEPUTY_REGISTRATION_TOPIC_ARN", "DEPUTY_REGISTRATION_QUEUE_URL"
    good = {topic: TOPIC, queue: QUEUE}
    for name, table in ((topic, TOPICS), (queue, QUEUES)):
        for given, why in table.items():
            [message] = problems(read, **good | {name: given}).items()
            assert message[0] == name, given
            assert why in message[1]


def test_china_has_a_topic_of_its_own(read):
    broker, topic = (text.replace("arn:aws:", "arn:aws-cn:") for text in (ROLE, TOPIC))
    topic = topic.replace("us-east-1", "cn-north-1")
    config = read(
        DEPUTY_BROKER_PRINCIPAL_ARN=broker,
        DEPUTY_REGISTRATION_TOPIC_ARN=topic,
        DEPUTY_REGISTRATION_QUEUE_URL=QUEUE,
    )
    assert config.aws.registration_topics == {"cn-north-1": topic}


# --- the canary and the stranger ---

CANARY = "arn:aws:iam::222233334444:role/deputy-canary"


ROLES = ("DEPUTY_CANARY_ROLE_ARN", "DEPUTY_STRANGER_ROLE_ARN")


def test_roles_with_which_proofs_are_tested(read):
    config = read(**dict.fromkeys(ROLES, CANARY))
    assert str(config.proofs.canary_role_arn) == str(config.proofs.stranger_role_arn) == CANARY
    assert config.own_accounts == {"111122223333", "222233334444"}
    assert config.aws.vendor_account_ids == {"111122223333"}
    config = read(**dict.fromkeys(ROLES, ""))
    assert config.proofs.canary_role_arn is config.proofs.stranger_role_arn is None


@pytest.mark.parametrize("name", ROLES)
def test_a_role_that_the_broker_could_not_reach_as_it_reaches_customers_is_told(read, name):
    elsewhere = "Launch cloudformation/canary.yaml in another account"
    not_one = "This is not the ARN of an IAM role (arn:aws:iam::<12 digits>:role/<name>)."
    partition = "must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
    prefix = "must begin with DEPUTY_ROLE_PREFIX, which is deputy-"
    for arn, words in (
        (CANARY.replace(":role/", ":user/"), not_one),
        (CANARY.replace("aws", "aws-cn"), partition),
        (CANARY.replace("222233334444", "111122223333"), elsewhere),
        (CANARY.replace("222233334444", "333344445555"), elsewhere),
        (CANARY.replace("deputy-", "acme-"), prefix),
    ):
        found = problems(read, DEPUTY_VENDOR_ACCOUNT_IDS="333344445555", **{name: arn})
        assert [*found] == [name]
        assert words in found[name]


def test_a_stranger_without_a_canary_or_of_another_prefix_is_doubtful(read):
    stranger = {"DEPUTY_STRANGER_ROLE_ARN": CANARY.replace("canary", "stranger")}
    canary = {"DEPUTY_CANARY_ROLE_ARN": CANARY}
    [doubt] = read(DEPUTY_PUBLIC_URL=PUBLIC, **stranger).likely_mistakes
    assert "skips the stranger" in doubt
    assert read(DEPUTY_PUBLIC_URL=PUBLIC, **stranger, **canary).likely_mistakes == ()
    assert read(DEPUTY_PUBLIC_URL=PUBLIC, **canary).likely_mistakes == ()
    shorter = {"DEPUTY_ROLE_PREFIX": "dep", **stranger, **canary}
    [doubt] = read(DEPUTY_PUBLIC_URL=PUBLIC, **shorter).likely_mistakes
    assert "is not called depstranger" in doubt


def test_proofs_that_are_over_before_they_are_repeated_are_doubtful(read):
    proofs = {"DEPUTY_REPROVE_EVERY": "3600", "DEPUTY_PROOF_MAX_AGE": "4800"}
    assert read(DEPUTY_PUBLIC_URL=PUBLIC, **proofs).likely_mistakes == ()
    proofs["DEPUTY_PROOF_MAX_AGE"] = "4799"
    [doubt] = read(DEPUTY_PUBLIC_URL=PUBLIC, **proofs).likely_mistakes
    assert doubt.startswith("DEPUTY_REPROVE_EVERY is 3600")


# --- session lengths ---


def test_a_broker_that_is_a_role_gives_an_hour_at_most(read):
    """That is told together with the other mistakes."""
    found = problems(read, DEPUTY_MAX_SESSION_SECONDS="3601", AWS_REGION=None)
    assert sorted(found) == ["AWS_REGION", "DEPUTY_MAX_SESSION_SECONDS"]
    assert re.search("3600.*role chaining", found["DEPUTY_MAX_SESSION_SECONDS"])


def test_a_broker_that_is_a_user_may_give_twelve(read):
    config = read(DEPUTY_BROKER_PRINCIPAL_ARN=USER, DEPUTY_MAX_SESSION_SECONDS="43200")
    assert config.aws.max_session_seconds == 43_200
    assert not config.aws.broker.is_role
    assert read(DEPUTY_BROKER_PRINCIPAL_ARN=USER).aws.max_session_seconds == 3600


# --- secrets ---


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["bare", "newline", "crlf"])
def test_a_secret_may_come_from_a_file_as_editors_write_it(read, tmp_path, end):
    file, url = tmp_path / "secret", GOOD["DEPUTY_DATABASE_URL"]
    secrets = {"SECRET_KEYS": f"{KEY},{KEY[::-1]}", "BOOTSTRAP_KEY": BOOTSTRAP, "DATABASE_URL": url}
    for name, text in secrets.items():
        file.write_bytes((text + end).encode())
        config = read(**{f"DEPUTY_{name}": None, f"DEPUTY_{name}_FILE": str(file)})
        assert config == read(**{f"DEPUTY_{name}": text, f"DEPUTY_{name}_FILE": None})


def test_a_file_that_cannot_be_read_is_told_with_the_rest(read, tmp_path):
    missing = {"DEPUTY_SECRET_KEYS_FILE": str(tmp_path / "none"), "DEPUTY_VENDOR_NAME": None}
    found = problems(read, **missing)
    assert sorted(found) == ["DEPUTY_SECRET_KEYS", "DEPUTY_VENDOR_NAME"]


def test_a_bad_secret_is_not_shown(read):
    for url in ("hunter2", "postgresql+psycopg://u@h:hunter2/d"):
        found = problems(read, DEPUTY_SECRET_KEYS="hunter2", DEPUTY_DATABASE_URL=url)
        assert "hunter2" not in str(found)


def test_settings_cannot_be_changed(read):
    with pytest.raises(FrozenInstanceError):
        read().aws.role_prefix = ""


# --- the process ---


def python(*arguments, **settings):
    """A process with a good environment and these changes."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DEPUTY_", "AWS_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env | GOOD | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_gunicorn_says_what_is_wrong_and_ends_instead_of_starting_web_processes_again_and_again():
    command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "1", "wsgi:app"]
    done = python(*command, DEPUTY_VENDOR_NAME="", DEPUTY_MAX_SESSION_SECONDS="ten")
    assert done.returncode == 3
    assert done.stderr.count("Deputy can't start with these settings:") == 1
    named = re.findall("^((?:DEPUTY|AWS)_[A-Z_]+):", done.stderr, re.MULTILINE)
    assert named == ["DEPUTY_MAX_SESSION_SECONDS", "DEPUTY_VENDOR_NAME"]
    assert "Traceback" not in done.stderr


# --- secret keys, of which the first signs and seals ---

TYPED = "changeme" * 8
HEX_KEY = hashlib.sha256(b"any").hexdigest()


def test_a_first_secret_key_that_nobody_drew_at_random_is_refused_with_a_way_to_make_one(read):
    for key in ("x" * 64, TYPED, f"{'a' * 60}bcdefghijk"):
        [message] = problems(read, DEPUTY_SECRET_KEYS=f"{key},{KEY}").values()
        assert "the first key" in message
        assert "fewer than 12 different characters" in message
        assert "secrets.token_urlsafe(48)" in message
        assert key not in message
    for key in (KEY, HEX_KEY, f"{'a' * 60}bcdefghijkl"):
        config = read(DEPUTY_SECRET_KEYS=key, DEPUTY_PUBLIC_URL=PUBLIC)
        assert config.database.secret_keys == (key,)
        assert config.likely_mistakes == ()
    assert all(looks_random(secrets.token_hex(32)) for _ in range(2_000)), (
        "hexadecimal keys are as good as any"
    )


def test_a_weaker_secret_key_further_back_still_verifies_and_is_warned_of(read):
    config = read(DEPUTY_SECRET_KEYS=f"{KEY},{TYPED},{HEX_KEY}", DEPUTY_PUBLIC_URL=PUBLIC)
    assert config.database.secret_keys == (KEY, TYPED, HEX_KEY)
    [doubt] = config.likely_mistakes
    assert doubt.startswith("DEPUTY_SECRET_KEYS: key 2 is not random.")
    assert "changeme" not in doubt


# --- what looks like a mistake ---


HINTS = yaml.safe_load("""
DEPUTY_PUBLC_URL: Did you mean DEPUTY_PUBLIC_URL?
DEPUTY_SECRETKEYS_FILE: Did you mean DEPUTY_SECRET_KEYS_FILE?
DEPUTY_VENDOR_ACCOUNTS: Did you mean DEPUTY_VENDOR_ACCOUNT_IDS?
DEPUTY_TOPIC_ARN: Did you mean DEPUTY_REGISTRATION_TOPIC_ARN?
DEPUTY_XYZZY: docs/settings.md lists all settings.
""")


def test_a_variable_that_does_not_exist_is_named_with_the_nearest_that_does(read):
    for name, hint in HINTS.items():
        [doubt] = read(DEPUTY_PUBLIC_URL=PUBLIC, **{name: "secret"}).likely_mistakes
        assert doubt == f"{name} is not a setting, so nothing reads it. {hint}"


def test_names_that_others_read_are_no_mistakes(read):
    """Those of `make run` and of the client, and what Kubernetes makes of a Service called
    deputy.
    """
    written = set()
    for pattern in ("client/**/*.py", "dev/*.py", "README.md", "docs/*.md"):
        for path in ROOT.glob(pattern):
            written |= {*re.findall(r"\bDEPUTY_[A-Z_]*[A-Z]\b", path.read_text())}
    settings = {declared.variable for declared in collect_settings(Config).values()}
    others = written - settings - {f"{name}_FILE" for name in settings}
    assert {"DEPUTY_DATA_DIR", "DEPUTY_API_KEY", "DEPUTY_CA_BUNDLE"} <= others
    kubernetes = {
        *("DEPUTY_SERVICE_HOST", "DEPUTY_SERVICE_PORT", "DEPUTY_SERVICE_PORT_HTTP", "DEPUTY_PORT"),
        *("DEPUTY_PORT_8000_TCP", "DEPUTY_PORT_8000_TCP_ADDR", "DEPUTY_PORT_8000_TCP_PROTO"),
    }
    given = dict.fromkeys(others | kubernetes | {"DEPUTY_FAIL_CLOSED"}, "x")
    assert read(DEPUTY_PUBLIC_URL=PUBLIC, **given).likely_mistakes == ()


LOCAL_URLS = yaml.safe_load("""
- [null, null, 1]
- ["http://localhost:8000", null, 1]
- ["http://127.0.0.1/deputy", null, 1]
- ["http://[::1]:8000", null, 1]
- ["http://0.0.0.0:8000", null, 1]
- ["http://deputy.localhost", "https://sts.example.com", 1]
- ["http://localhost:8000", "http://localhost:4566", 0]
- ["http://localhost:8000", "http://127.0.0.1:4566", 0]
- ["https://deputy.example.com", null, 0]
- ["https://localhost.example.com", null, 0]
- ["http://10.0.0.1", null, 0]
""")


def test_a_public_url_of_this_machine_is_doubted_unless_aws_is_on_it_too(read):
    for url, endpoint, doubts in LOCAL_URLS:
        mistakes = read(DEPUTY_PUBLIC_URL=url, AWS_ENDPOINT_URL=endpoint).likely_mistakes
        assert len(mistakes) == doubts, url
        assert all(text.startswith("DEPUTY_PUBLIC_URL is http://") for text in mistakes)


# --- the broker's ARN ---


def test_a_broker_whose_arn_means_others_in_a_trust_policy_is_refused(read):
    for path in ("role/*/", "role/team?/", "user/${aws:username}/", "user/a/*b/", "role/$/"):
        arn = f"arn:aws:iam::111122223333:{path}DeputyBroker"
        found = problems(read, DEPUTY_BROKER_PRINCIPAL_ARN=arn)
        assert "must not hold *, ? or $" in found["DEPUTY_BROKER_PRINCIPAL_ARN"]


# --- the public URL's path ---


def test_a_path_that_could_be_another_is_refused_at_start(read):
    own = ("/v1", "/onboard/", "/docs/x", "/openapi.json")
    for path in (*own, "//", "//x", "/a//b", "/../x", "/.", "/a b", "/ä", "/%2e", "/a;b", "/'"):
        assert [*problems(read, DEPUTY_PUBLIC_URL=PUBLIC + path)] == ["DEPUTY_PUBLIC_URL"], path


def test_no_path_of_the_services_own_is_forgotten():
    app = create_app(make_config(NOWHERE))
    assert {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} == set(OWN_PATHS)
