"""`make run` with settings of one's own: the vendor's side of the local AWS fits them, and a
file holds all of them.
"""

import itertools
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from dev.demo import aws
from dev.run import summary
from dev.run_settings import Settings, StackError, ensure_fresh_shell, exports, vendor_arguments
from dev.stack import Stack
from tests.dev.make_run import (
    DOUBTFUL,
    ODD,
    PATIENCE,
    ROOT,
    STOPPED,
    TWINS,
    VENDOR,
    Run,
    assert_nothing_left,
    call,
    new_key,
    processes,
)
from tests.support.rows import ByHand
from tests.support.sets import MISTAKEN
from tests.support.waiting import until


def test_every_setting_with_a_twin_in_broker_yaml_shapes_the_vendors_stack(run):
    tenant = call(run, run.admin_key, "POST", "/v1/tenants", {"name": "Initech"}, expect=201)
    kit = call(run, run.admin_key, "GET", f"/v1/tenants/{tenant['id']}/onboarding")
    assert kit["role_name"] == kit["stack_name"] == f"Acme-{tenant['id'].replace('-', '')[-8:]}"
    with closing(aws(run.sandbox_url, "cloudformation", VENDOR)) as cloudformation:
        [stack] = cloudformation.describe_stacks()["Stacks"]
    assert stack["StackName"] == "Acme-broker"
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in stack["Parameters"]}
    assert parameters["RolePrefix"] == TWINS["DEPUTY_ROLE_PREFIX"]
    assert parameters["VendorAccountIds"] == TWINS["DEPUTY_VENDOR_ACCOUNT_IDS"]
    assert parameters["TemplateBucketName"] == TWINS["DEPUTY_TEMPLATE_BUCKET"]
    assert parameters["BrokerRoleName"] == "AcmeBroker"


def test_a_file_holds_the_services_settings_for_commands(run):
    [note] = re.findall(r"^note +(.*)", run.output, re.MULTILINE)
    assert note.startswith(f"{DOUBTFUL} is not a setting, so nothing reads it.")
    assert note.endswith("Did you mean DEPUTY_ISSUE_RATE?")
    path = run.data / "env"
    lines = path.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"export [A-Z0-9_]+='.*'", line)] == []
    assert sourced(path)[DOUBTFUL] == ODD
    topics = sourced(path)["DEPUTY_REGISTRATION_TOPIC_ARN"].split(",")
    assert [arn.split(":")[3] for arn in topics] == ["us-east-1", "eu-central-1", "eu-south-1"]
    if Path("/proc").exists():
        web, *_ = (
            environment
            for pid, environment in sorted(processes(run.data).items())
            if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        assert sourced(path) == of_service(web)
    words = f'. "{path}" && .venv/bin/flask --app wsgi keys list'
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["sh", "-c", words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bootstrap admin" in done.stdout


def test_who_is_killed_outright_leaves_no_process_and_the_next_start_is_fresh(tmp_path):
    key = new_key()
    with Run("run", tmp_path / "data", DEPUTY_BOOTSTRAP_KEY=key) as run:
        until(lambda: "starting  CloudFormation" in run.output, "the sandbox runs", PATIENCE)
        notes = [run.data / "run.json", run.data / "env"]
        for note in notes:
            note.write_text("as of a run that was ready")
        left = Path((run.data / "postgres").read_text())
        assert (left / "data" / "postmaster.pid").exists()
        run.process.kill()
        run.process.wait()
        assert_nothing_left(run, STOPPED)
    settings_of_run = Settings(run.port, run.sandbox_port, run.data)
    with Stack(settings_of_run, {"PATH": os.environ["PATH"]}) as again:
        again.prepare()
        assert not any(note.exists() for note in notes)
        assert not left.exists(), "the server that the killed run left behind is stopped"
        assert f"database     {again.database}" in summary(again)
        database = ByHand(again.environment["DEPUTY_DATABASE_URL"])
        assert database.rows("SELECT id FROM tenants") == []
        assert database.rows("SELECT lookup FROM api_keys") == [(again.admin_key[4:20],)]
        assert again.admin_key != key


def sourced(path):
    """What a shell has in its environment after it has read the file."""
    done = subprocess.run(
        ["sh", "-c", '. "$0"; env -0', str(path)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    lines = done.stdout.decode().rstrip("\0").split("\0")
    return of_service(dict(line.split("=", 1) for line in lines))


def of_service(environment):
    names = [name for name in environment if name.startswith(("DEPUTY_", "AWS_"))]
    return {name: environment[name] for name in names}


def settings(**changes):
    return {
        "DEPUTY_BROKER_PRINCIPAL_ARN": f"arn:aws:iam::{VENDOR}:role/B",
        "DEPUTY_TEMPLATE_BUCKET": "b",
        **changes,
    }


def named(arguments, name):
    return [value for option, value in itertools.pairwise(arguments) if option == name]


def test_the_vendors_stack_is_named_after_the_prefix_as_far_as_cloudformation_allows():
    for given, stack, passed in (
        ({}, "deputy-broker", []),
        ({"DEPUTY_ROLE_PREFIX": ""}, "deputy-broker", ["RolePrefix="]),
        ({"DEPUTY_ROLE_PREFIX": "_x.y@"}, "deputy-x-y-broker", ["RolePrefix=_x.y@"]),
    ):
        arguments = vendor_arguments(settings(**given))
        assert named(arguments, "--vendor-stack") == [stack]
        parameters = named(arguments, "--vendor-parameter")
        assert [pair for pair in parameters if "RolePrefix" in pair] == passed


def test_no_parameter_of_broker_yaml_that_a_setting_speaks_of_is_forgotten():
    """A new one there must be passed too, or be named here with the reason why not."""
    template = yaml.load((ROOT / "cloudformation" / "broker.yaml").read_text(), yaml.BaseLoader)  # noqa: S506
    pairs = named(vendor_arguments(settings(**TWINS)), "--vendor-parameter")
    passed = {pair.partition("=")[0] for pair in pairs}
    # Who may be the broker; a queue that `make run` has no use for
    not_the_services = {"BrokerService"}
    assert passed | not_the_services == set(template["Parameters"])


def test_a_broker_that_broker_yaml_does_not_make_is_one_sentence():
    for arn in (
        "arn:aws:iam::555566667777:user/someone",
        "arn:aws:iam::555566667777:role/path/Broker",
        "arn:aws-cn:iam::555566667777:role/Broker",
    ):
        with pytest.raises(StackError, match=r"^DEPUTY_BROKER_PRINCIPAL_ARN: the sandbox makes"):
            vendor_arguments(settings(DEPUTY_BROKER_PRINCIPAL_ARN=arn))


def test_a_name_that_the_shell_would_read_as_more_than_a_name_is_left_out():
    assert (
        exports({"DEPUTY_X;id": "1", "DEPUTY_X Y": "1", "PATH": "/bin", "AWS_A": "a'b"})
        == "export AWS_A='a'\"'\"'b'\n"
    )


def test_a_database_of_ones_own_is_never_emptied(tmp_path):
    (tmp_path / "url").write_text("postgresql://own/deputy")
    assert not Stack(None, {"DEPUTY_DATABASE_URL": "postgresql://own/deputy"}).embedded
    assert not Stack(None, {"DEPUTY_DATABASE_URL_FILE": str(tmp_path / "url")}).embedded
    assert Stack(None, {}).embedded


def test_a_shell_with_the_settings_of_an_earlier_run_is_told_so():
    with pytest.raises(StackError, match="Use another shell"):
        ensure_fresh_shell({"DEPUTY_REGISTRATION_QUEUE_URL": "of a sandbox that has ended"})


def test_a_folder_of_permission_sets_with_mistakes_ends_it_with_the_whole_list(tmp_path):
    with Run("run", tmp_path / "data", DEPUTY_PERMISSION_SETS=str(MISTAKEN)) as run:
        assert run.ended() == 1
        said = [line for line in run.output.splitlines() if line.startswith("everything.yaml: ")]
        assert len(said) == 5, run.output
        assert "Deputy is ready" not in run.output
        assert_nothing_left(run)
