"""deploy/fargate.yaml: its tasks' settings start the service, and its times and groups fit it. `make check` lints it."""

import os
import re
from typing import Any

import psycopg
import pytest
from cfnlint.decode import decode

from app.config import Config, _settings
from app.errors import StoreUnavailableError
from app.store.database import Database
from app.store.revisions import revision
from dev.postgres import Postgres
from dev.stack import ROOT

TEMPLATE, _ = decode(str(ROOT / "deploy" / "fargate.yaml"))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
TASKS = {name: one["Properties"] for name, one in RESOURCES.items() if one["Type"] == "AWS::ECS::TaskDefinition"}
GIVEN = {
    "AWS::Region": "eu-west-1",
    "PublicUrl": "https://deputy.example.com",
    "VendorName": "Example Vendor",
    "BrokerPrincipalArn": "arn:aws:iam::111122223333:role/DeputyBroker",
    "TemplateBucket": "example-deputy-templates",
    "RegistrationTopicArn": "arn:aws:sns:eu-west-1:111122223333:deputy",
    "RegistrationQueueUrl": "https://sqs.eu-west-1.amazonaws.com/111122223333/deputy",
    "CeleryUrl": "sqs://sqs.eu-west-1.amazonaws.com/111122223333/deputy-work",
    "CanaryRoleArn": "arn:aws:iam::444455556666:role/deputy-canary",
    "StrangerRoleArn": "arn:aws:iam::444455556666:role/deputy-stranger",
    "Database.Endpoint.Address": "127.0.0.1",
    "Database.Endpoint.Port": "5432",
}
SECRET = {
    "PGPASSWORD": "password",
    "DEPUTY_CACHE_URL": "rediss://:token@cache.example.com:6379/0",
    "DEPUTY_SECRET_KEYS": "a-key-of-the-tests-0123456789-abcdefghijk",
}
# Which the template need not set, and why.
LEFT = {
    "DEPUTY_BOOTSTRAP_KEY": "the first key is made by a command",
    "DEPUTY_CONSOLE_URL": "AWS's own",
    "DEPUTY_METRICS_BIND": "for a Prometheus in the same network",
    "DEPUTY_PERMISSION_SETS": "part of the vendor's image, which sets it",
    "DEPUTY_DEFAULT_PERMISSION_SET": "the same",
    "DEPUTY_ROLE_PREFIX": "broker.yaml's default",
    "DEPUTY_VENDOR_ACCOUNT_IDS": "broker.yaml's default",
    "DEPUTY_VENDOR_NAME_ASCII": "made from the name",
    "DEPUTY_VENDOR_URL": "optional",
    "DEPUTY_LOG_LEVEL": "INFO",
}  # and the numbers, whose defaults fit the template's size


def container(task: str) -> dict[str, Any]:
    (found,) = TASKS[task]["ContainerDefinitions"]
    return dict(found)


def resolved(value: Any) -> Any:
    """The text of a value with these parameters."""
    if isinstance(value, dict) and "Ref" in value:
        return GIVEN[value["Ref"]]
    if isinstance(value, dict) and "Fn::Sub" in value:
        return re.sub(r"\$\{(.*?)\}", lambda found: GIVEN[found[1]], value["Fn::Sub"])
    return value


def environment(task: str) -> dict[str, str]:
    listed = [one["Fn::If"][1] if "Fn::If" in one else one for one in container(task)["Environment"]]
    return {one["Name"]: resolved(one["Value"]) for one in listed}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A task's environment has none of this machine's."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DEPUTY_", "PG"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_settings_start_the_service_without_a_doubt(alone, task):
    secrets = {one["Name"] for one in container(task)["Secrets"]}
    assert secrets == SECRET.keys()
    for name, value in {**environment(task), **SECRET}.items():
        alone.setenv(name, value)
    config = Config.from_environment()
    assert config.likely_mistakes == ()
    assert config.proxy_hops == 1
    assert config.broker.arn == resolved(TASKS[task]["TaskRoleArn"]), "the broker's role is the task's"


def test_all_tasks_have_the_same_settings():
    first, *others = (environment(task) for task in TASKS)
    assert len(others) == 2
    assert all(other == first for other in others)


def test_every_setting_is_set_or_left_for_a_reason():
    known = {variable for variable, _, _ in _settings(Config).values()}
    assert {name for name in environment("WebTask") if name.startswith("DEPUTY_")} <= known
    assert LEFT.keys() <= known
    numbers = {variable for variable, _, default in _settings(Config).values() if type(default) is int}
    left = known - environment("WebTask").keys() - SECRET.keys() - numbers
    assert left == LEFT.keys()


def test_the_databases_password_comes_from_its_own_variable(alone):
    """ECS can't put a secret into the middle of DEPUTY_DATABASE_URL; libpq reads PGPASSWORD."""
    with Postgres() as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as db:
            db.execute("CREATE ROLE deputy LOGIN PASSWORD 'password'")
            db.execute("CREATE DATABASE deputy OWNER deputy")
            (server._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            db.execute("SELECT pg_reload_conf()")
        url = environment("WebTask")["DEPUTY_DATABASE_URL"].replace(":5432", f":{server.port}")
        assert url.endswith("?sslmode=require")
        for password, works in (("password", True), ("another", False)):
            alone.setenv("PGPASSWORD", password)
            database = Database(url.replace("=require", "=prefer"))  # the tests' server has no certificate
            assert (revision_or_refusal(database) is None) is works
            database.engine.dispose()


def revision_or_refusal(database: Database) -> str | None:
    """None for the empty database that was reached."""
    try:
        return revision(database)
    except StoreUnavailableError as error:
        return error.detail


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_containers_can_write_nothing_and_gain_nothing(task):
    found = container(task)
    assert found["ReadonlyRootFilesystem"] is True
    assert found["LinuxParameters"]["Capabilities"]["Drop"] == ["ALL"]
    assert [mount["ContainerPath"] for mount in found["MountPoints"]] == ["/tmp"]  # noqa: S108
    user = re.search(r"^USER (\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert found["User"] == user[1]


def test_the_migration_has_an_image_of_its_own_and_the_services_share_one():
    images = {task: container(task)["Image"]["Ref"] for task in TASKS}
    assert images == {"WebTask": "Image", "WorkerTask": "Image", "MigrateTask": "MigrationImage"}
    assert container("MigrateTask")["Command"] == ["flask", "--app", "wsgi", "migrate"]


def services() -> list[dict[str, Any]]:
    return [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::ECS::Service"]


def test_a_deployment_keeps_all_tasks_until_new_ones_are_healthy_and_takes_a_bad_one_back():
    assert len(services()) == 2
    for service in services():
        deployment = service["DeploymentConfiguration"]
        assert deployment["MinimumHealthyPercent"] == 100
        assert deployment["MaximumPercent"] == 200
        assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert TEMPLATE["Parameters"]["WebTasks"]["Default"] == TEMPLATE["Parameters"]["WorkerTasks"]["Default"] == 2


def test_the_tasks_times_fit_gunicorns():
    text = (ROOT / "gunicorn.conf.py").read_text()
    graceful, kept = (
        int(re.search(rf"^{name} = (\d+)", text, re.MULTILINE)[1]) for name in ("graceful_timeout", "keepalive")
    )
    for task in TASKS:
        assert container(task)["StopTimeout"] > graceful
    idle = {one["Key"]: one["Value"] for one in RESOURCES["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]}
    assert int(idle["idle_timeout.timeout_seconds"]) < kept
    (delay,) = RESOURCES["WebTargets"]["Properties"]["TargetGroupAttributes"]
    assert int(delay["Value"]) >= graceful
    assert RESOURCES["WebTargets"]["Properties"]["HealthCheckPath"] == "/readyz"


def test_each_part_is_reached_by_the_one_before_it_alone():
    def sources(group: str) -> set[Any]:
        rules = RESOURCES[group]["Properties"]["SecurityGroupIngress"]
        return {rule.get("CidrIp") or rule["SourceSecurityGroupId"]["Ref"] for rule in rules}

    assert sources("LoadBalancerGroup") == {"0.0.0.0/0"}
    assert sources("TaskGroup") == {"LoadBalancerGroup"}
    assert sources("DatabaseGroup") == sources("CacheGroup") == {"TaskGroup"}
    for service in services():
        assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
