"""deploy/fargate.yaml: its tasks' settings start the service, in the guide's order, and its times
and groups fit it. `make check` lints it.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from subprocess import DEVNULL

import psycopg
import pytest
from cfnlint.decode import decode

from app.config import Config
from app.identity.key_text import generate_key
from app.settings.setting_types import collect_settings
from dev.postgres import Postgres
from dev.stack import ROOT, end_process
from sandbox.vendor import VENDOR_ACCOUNT
from tests.deploy.compose import make_roles
from tests.deploy.conftest import commands, of_gunicorn
from tests.support.waiting import until

TEMPLATE, _ = decode(str(ROOT / "deploy" / "fargate.yaml"))
RESOURCES = TEMPLATE["Resources"]
TASKS = {
    name: one["Properties"]
    for name, one in RESOURCES.items()
    if one["Type"] == "AWS::ECS::TaskDefinition"
}
GIVEN = {
    "AWS::Region": "eu-west-1",
    "PublicUrl": "https://deputy.example.com",
    "VendorName": "Example Vendor",
    "BrokerPrincipalArn": "arn:aws:iam::111122223333:role/DeputyBroker",
    "TemplateBucket": "example-deputy-templates",
    "RegistrationTopicArn": "arn:aws:sns:eu-west-1:111122223333:deputy"
    ",arn:aws:sns:eu-south-1:111122223333:deputy",
    "RegistrationQueueUrl": "https://sqs.eu-west-1.amazonaws.com/111122223333/deputy",
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
# And the numbers, whose defaults fit the template's size
LEFT = {
    "DEPUTY_BOOTSTRAP_KEY": "the first key is made by a command",
    "DEPUTY_CONSOLE_URL": "AWS's own",
    "DEPUTY_METRICS_BIND": "for a Prometheus in the same network",
    "DEPUTY_PERMISSION_SETS": "part of the vendor's image, which sets it",
    "DEPUTY_DEFAULT_PERMISSION_SET": "the same",
    "DEPUTY_ROLE_PREFIX": "broker.yaml's default",
    "DEPUTY_IMPORTED_ROLE_NAMES": "for those who bring customers over",
    "DEPUTY_VENDOR_ACCOUNT_IDS": "broker.yaml's default",
    "DEPUTY_VENDOR_NAME_ASCII": "made from the name",
    "DEPUTY_VENDOR_URL": "optional",
    "DEPUTY_SUPPORT_URL": "optional",
    "DEPUTY_PRIVACY_URL": "optional",
    "DEPUTY_VENDOR_LOGO": "part of the vendor's image, which sets it",
    "DEPUTY_VENDOR_COLOR": "optional",
    "DEPUTY_RETURN_URLS": "optional",
    "DEPUTY_WEBHOOK_ALLOWED_NETWORKS": "no address is private to the vendor by default",
    "DEPUTY_LOG_LEVEL": "INFO",
}


def container(task):
    (found,) = TASKS[task]["ContainerDefinitions"]
    return dict(found)


def resolved(value):
    """The text of a value with these parameters."""
    if isinstance(value, dict) and "Ref" in value:
        return GIVEN[value["Ref"]]
    if isinstance(value, dict) and "Fn::Sub" in value:
        return re.sub(r"\$\{(.*?)\}", lambda found: GIVEN[found[1]], value["Fn::Sub"])
    return value


def environment(task):
    return {one["Name"]: resolved(one["Value"]) for one in listed(task, "Environment")}


def listed(task, name):
    return [one["Fn::If"][1] if "Fn::If" in one else one for one in container(task)[name]]


@pytest.fixture
def alone(monkeypatch) -> pytest.MonkeyPatch:
    """A task's environment has none of this machine's."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DEPUTY_", "PG"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_settings_start_the_service_without_a_doubt(alone, task):
    secrets = {one["Name"] for one in listed(task, "Secrets")}
    assert secrets - {"DEPUTY_BOOTSTRAP_KEY"} == SECRET.keys()
    assert ("DEPUTY_BOOTSTRAP_KEY" in secrets) is (task == "MigrateTask")
    for name, value in {**environment(task), **SECRET}.items():
        alone.setenv(name, value)
    config = Config.from_environment()
    assert config.likely_mistakes == ()
    assert [*config.aws.registration_topics] == ["eu-west-1", "eu-south-1"]
    assert config.service.proxy_hops == 1
    role = TASKS[task].get("TaskRoleArn")
    assert role is None if task == "MigrateTask" else resolved(role) == config.aws.broker.arn


def test_all_tasks_have_the_same_settings_but_for_the_role_in_the_database():
    """Web tasks own nothing. Background workers own the months of the audit log, and the
    migration makes the tables.
    """
    given = {task: environment(task) for task in TASKS}
    urls = {task: one.pop("DEPUTY_DATABASE_URL") for task, one in given.items()}
    url = urls["WebTask"].replace("//deputy_web@", "//deputy@")
    assert url.endswith("?sslmode=require")
    assert urls["WebTask"] != url == urls["WorkerTask"] == urls["MigrateTask"]
    assert given["WebTask"] == given["WorkerTask"] == given["MigrateTask"]
    passwords = {task: listed(task, "Secrets")[0]["ValueFrom"]["Fn::Sub"] for task in TASKS}
    # PGPASSWORD: ECS can't put a secret into the middle of a URL
    owner = "${DatabaseSecret}:password::"
    assert passwords == {
        "WebTask": "${WebDatabaseSecret}:password::",
        "WorkerTask": owner,
        "MigrateTask": owner,
    }


def test_an_image_is_named_by_its_digest():
    for name in ("Image", "MigrationImage"):
        pattern = TEMPLATE["Parameters"][name]["AllowedPattern"]
        assert re.fullmatch(
            pattern, f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/deputy@sha256:{'0a' * 32}"
        )
        for other in ("deputy:1", "deputy", f"deputy@sha256:{'0a' * 31}"):
            assert not re.fullmatch(pattern, other)


def test_ecs_uses_the_execution_role_for_this_account_alone():
    [trusted] = RESOURCES["ExecutionRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
        "ArnLike": {
            "aws:SourceArn": {
                "Fn::Sub": "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*"
            }
        },
    }


def test_every_setting_is_set_or_left_for_a_reason():
    declared = {one.variable: one.default for one in collect_settings(Config).values()}
    known = {*declared} - {"AWS_REGION"}
    assert {name for name in environment("WebTask") if name.startswith("DEPUTY_")} <= known
    assert LEFT.keys() <= known
    numbers = {variable for variable, default in declared.items() if type(default) is int}
    left = known - environment("WebTask").keys() - SECRET.keys() - numbers
    assert left == LEFT.keys()


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


def services():
    return [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::ECS::Service"]


def test_a_deployment_keeps_all_tasks_until_new_ones_are_healthy_and_takes_a_bad_one_back():
    assert len(services()) == 2
    for service in services():
        deployment = service["DeploymentConfiguration"]
        assert deployment["MinimumHealthyPercent"] == 100
        assert deployment["MaximumPercent"] == 200
        assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert (
        TEMPLATE["Parameters"]["WebTasks"]["Default"]
        == TEMPLATE["Parameters"]["WorkerTasks"]["Default"]
        == 2
    )


def test_the_tasks_times_fit_gunicorns():
    graceful = of_gunicorn("graceful_timeout")
    for task in TASKS:
        assert container(task)["StopTimeout"] > graceful
    idle = {
        one["Key"]: one["Value"]
        for one in RESOURCES["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]
    }
    assert int(idle["idle_timeout.timeout_seconds"]) < of_gunicorn("keepalive")
    (delay,) = RESOURCES["WebTargets"]["Properties"]["TargetGroupAttributes"]
    assert int(delay["Value"]) >= graceful
    assert RESOURCES["WebTargets"]["Properties"]["HealthCheckPath"] == "/readyz"


def test_each_part_is_reached_by_the_one_before_it_alone():
    def sources(group):
        rules = RESOURCES[group]["Properties"]["SecurityGroupIngress"]
        return {rule.get("CidrIp") or rule["SourceSecurityGroupId"]["Ref"] for rule in rules}

    assert sources("LoadBalancerGroup") == {"0.0.0.0/0"}
    assert sources("TaskGroup") == {"LoadBalancerGroup"}
    assert sources("DatabaseGroup") == sources("CacheGroup") == {"TaskGroup"}
    for service in services():
        assert (
            service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
        )


# --- the guide's order ---


class Stack:
    """What the guide's commands make: the database's roles, tasks that end, and the services'
    background worker.
    """

    def __init__(self, server, images, given, redis):
        self.server, self._images, self._given, self._redis = server, images, given, redis
        self.printed: list[str] = []
        self.worker: subprocess.Popen[bytes] | None = None

    def walk(self, name, publisher):
        for words in guide(name):
            match step_of(words):
                case "publish":
                    self.publish(publisher)
                case "roles":
                    self.make_roles()
                case "services":
                    self.start_worker()
                case "stack":
                    assert self.worker is None
                case _:
                    _, task, *command = words
                    assert overrides(task, command) == [{"name": "deputy", "command": command}]
                    self.task(
                        {"$MIGRATE_TASK": "MigrateTask", "$WEB_TASK": "WebTask"}[task], command
                    )

    def environment(self, task):
        """With the credentials of AWS only where the task has a role."""
        template = environment(task)
        url = template["DEPUTY_DATABASE_URL"].replace(":5432", f":{self.server.port}")
        own = {
            "DEPUTY_DATABASE_URL": url.replace("=require", "=prefer"),
            "DEPUTY_TEMPLATE_BUCKET": BUCKET,
            "PGPASSWORD": PASSWORDS[url.partition("://")[2].partition("@")[0]],
            "DEPUTY_CACHE_URL": self._redis,
        }
        if task == "MigrateTask":
            own["DEPUTY_BOOTSTRAP_KEY"] = KEY
        if "TaskRoleArn" in TASKS[task]:
            own |= {name: value for name, value in self._given.items() if "AWS_" in name}
        else:
            own["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        return template | SECRET | own

    def task(self, task, words):
        ends = (0, 1, 2) if words[-1] == "doctor" else (0,)
        printed, errors = self._images["deputy"].output(words, self.environment(task), ends=ends)
        self.printed.append(printed + errors)

    def publish(self, publisher):
        """With the variables that the guide's `docker run` passes on, and no other."""
        passed = re.findall(r"--env (\w+)", commands("fargate").partition("publish()")[2])
        known = {
            **environment("WebTask"),
            "AWS_REGION": "us-east-1",
            "DEPUTY_TEMPLATE_BUCKET": BUCKET,
            **publisher,
        }
        given = {name: known[name] for name in passed if name in known}
        endpoint = {"AWS_ENDPOINT_URL": self._given["AWS_ENDPOINT_URL_S3"]}
        image = self._images["publish"]
        image.output(image.command, given | endpoint)

    def make_roles(self):
        """As the administrator, who is no superuser and owns the database."""
        files = {
            "OWNER_PASSWORD_FILE": self._file("deputy"),
            "WEB_PASSWORD_FILE": self._file("deputy_web"),
        }
        login = (
            f"host=127.0.0.1 port={self.server.port} user=deputy dbname=deputy"
            f" password={PASSWORDS['deputy']}"
        )
        make_roles(login, files)

    def _file(self, role):
        path = self.server._home / f"{role}-password"
        path.write_text(PASSWORDS[role])
        return path

    def start_worker(self):
        words, given = container("WorkerTask")["Command"], self.environment("WorkerTask")
        self.worker = self._images["deputy"].start(words, given, stdout=DEVNULL, stderr=DEVNULL)

    def recorded(self):
        with psycopg.connect(self.server.url("deputy").replace("+psycopg", "")) as db:
            return db.execute("SELECT name, version FROM permission_set_versions").fetchall()


def guide(name):
    """Return the words of the guide's commands, below its functions."""
    text = commands(name)
    return [
        shlex.split(line, comments=True)
        for line in (text.partition("\n\n")[2] or text).splitlines()
    ]


def step_of(words):
    match words:
        case ["task", _, "flask", "--app", "wsgi", *command]:
            return "bootstrap" if command[:2] == ["keys", "bootstrap"] else command[-1]
        case ["psql", *_]:
            return "roles"
        case ["publish"]:
            return "publish"
        case ["stack", *changes]:
            changed = {change.partition("=")[0] for change in changes}
            if "WebTasks=0" in changes or not changed & {"WebTasks", "Image"}:
                return "stack"
            return "services"
    raise AssertionError(words)


def overrides(task, words):
    """What the guide's function tells ECS to run."""
    functions = re.search(
        r"^words\(\).*?^print.*?$", commands("fargate"), re.MULTILINE | re.DOTALL
    )[0]
    script = f"{functions}\nwords {shlex.join([task, *words])}"
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, check=True)
    return list(json.loads(done.stdout)["containerOverrides"])


PASSWORDS = {"deputy": "the-owners", "deputy_web": "the-webs"}
KEY = generate_key()
BUCKET = f"deputy-templates-{VENDOR_ACCOUNT}"


@pytest.fixture
def stack(image, publish_image, settings, valkey) -> Iterator[Stack]:
    """With the database that the template makes, and before any of the guide's commands."""
    with Postgres() as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as db:
            db.execute(
                f"CREATE ROLE deputy LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORDS['deputy']}'"
            )
            db.execute("CREATE DATABASE deputy OWNER deputy")
            hosts = (
                "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            )
            (server._data / "pg_hba.conf").write_text(hosts)
            db.execute("SELECT pg_reload_conf()")
        made = Stack(server, {"deputy": image, "publish": publish_image}, settings, valkey.url)
        yield made
        if made.worker is not None:
            end_process(made.worker)


def test_the_guide_migrates_and_publishes_before_services_start():
    first = ["stack", "roles", "migrate", "bootstrap", "publish", "services", "doctor"]
    assert [step_of(words) for words in guide("fargate")] == first
    # The last one goes back
    later = ["stack", "migrate", "publish", "services", "doctor", "services"]
    assert [step_of(words) for words in guide("fargate, later")] == later


def test_the_guides_commands_launch_the_stack(stack, publisher):
    stack.walk("fargate", publisher)
    until(stack.recorded, "the background worker has recorded what was published")
    report = stack.printed[-1]
    assert re.search(r"^templates\s+ok|^ok\s+templates", report, re.MULTILINE), report
    logged = "".join(stack.printed)
    assert "The bootstrap key is installed." in logged
    assert KEY not in logged
    with psycopg.connect(stack.server.url("deputy").replace("+psycopg", "")) as db:
        owners = db.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        assert owners == [("deputy",)]
