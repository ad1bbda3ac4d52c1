"""`make aws-check` against the sandbox, with accounts that have users, and profiles in a file,
as an operator has them.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import jmespath
import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.errors import AppError
from app.store.database import Database
from dev.aws_check import __main__ as aws_check, answers, stacks, trust_conditions
from dev.aws_check.accounts import CheckError, ensure_public_templates
from dev.aws_check.answers import EXPECTED, WITHIN, Answers
from dev.aws_check.stage import Stage
from sandbox.organization import organization
from tests.dev.make_run import ROOT, database_url_of
from tests.support.cast import root_client
from tests.support.rotations import PassingMinutes
from tests.support.waiting import until

ACCOUNTS = {"vendor": "121200000001", "customer": "121200000002", "canary": "121200000003"}
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
STEPS = len(aws_check.STEPS)


def profile(name, key, secret):
    keys = [f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}"]
    return [f"[profile {name}]", *keys]


@pytest.fixture(scope="module")
def profiles(aws, tmp_path_factory):
    """The operator's AWS configuration: an administrator of each account."""
    lines = []
    for name, account in ACCOUNTS.items():
        iam = root_client(aws, "iam", account)
        iam.create_user(UserName="operator")
        iam.put_user_policy(
            UserName="operator", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING)
        )
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        lines += [*profile(name, key["AccessKeyId"], key["SecretAccessKey"]), "region = us-east-1"]
    lines += profile("root", ACCOUNTS["vendor"], "any")
    path = tmp_path_factory.mktemp("operator") / "config"
    path.write_text("\n".join(lines))
    return path


class Operator:
    """Runs the check in this process."""

    def __init__(self, data, patch):
        self.data, self._patch = data, patch

    def __call__(self, *words):
        self._patch.setattr(sys, "argv", ["aws-check", *words])
        return aws_check.main()

    def changing(self, place, act):
        """That step is taken by `act`, which gets the step itself."""
        steps = list(aws_check.STEPS)
        title, step = steps[place]
        steps[place] = (title, partial(act, step))
        self._patch.setattr(aws_check, "STEPS", steps)


@pytest.fixture
def check(tmp_path, profiles, monkeypatch):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profiles))
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.setenv("DEPUTY_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr("dev.aws_check.clean_up._PAUSE", 0.0)
    monkeypatch.setattr("dev.aws_check.customers_part._PAUSE", 2.0)
    monkeypatch.setattr("dev.aws_check.trust_conditions._PAUSE", 0.0)
    return Operator(tmp_path, monkeypatch)


PROFILES = ["--vendor", "vendor", "--customer", "customer", "--canary", "canary"]


@pytest.fixture
def refused_role(aws):
    """A role that would let in everybody, if its organisation's policy did not refuse it."""
    account = "121200000004"
    iam = root_client(aws, "iam", account)
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}
    made = iam.create_role(
        RoleName="refused", AssumeRolePolicyDocument=json.dumps(EVERYTHING | {"Statement": anybody})
    )
    refusal = anybody | {"Effect": "Deny", "Resource": "*"}
    organization.govern(account, resource_control=EVERYTHING | {"Statement": refusal})
    yield made["Role"]["Arn"]
    organization._policies.clear()
    iam.delete_role(RoleName="refused")


def remains(aws):
    """What there is in the three accounts, but for the operators themselves."""
    found = []
    for account, (service, look, names) in product(ACCOUNTS.values(), LOOKS):
        client = root_client(aws, service, account)
        given = {"Scope": "Local"} if look == "list_policies" else {}
        found += jmespath.search(names, getattr(client, look)(**given)) or []
    return found


LOOKS = [
    ("cloudformation", "describe_stacks", "Stacks[].StackName"),
    ("iam", "list_roles", "Roles[].RoleName"),
    ("iam", "list_policies", "Policies[].PolicyName"),
    ("s3", "list_buckets", "Buckets[].Name"),
    ("sns", "list_topics", "Topics[].TopicArn"),
    ("sqs", "list_queues", "QueueUrls"),
]


class Minutes(threading.Thread):
    """Lets the minutes pass that a rotation waits for, in the database of the Deputy below that
    folder.
    """

    def __init__(self, data):
        super().__init__(daemon=True)
        self._data, self._over = data, threading.Event()

    def run(self):
        passing = None
        while not self._over.wait(0.3):
            for path in self._data.glob("aws-check-*/env"):
                # it is not there any more
                with suppress(SQLAlchemyError, AppError, OSError, TypeError):
                    passing = passing or PassingMinutes(Database(database_url_of(path.parent)))
                    passing()
        if passing:
            passing._database.engine.dispose()

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self._over.set()
        self.join()


def test_the_whole_story_is_answered_as_expected_and_nothing_is_left(
    aws, check, capsys, refused_role
):
    with Minutes(check.data):
        exited = check(*PROFILES, "--yes", "--refused-role", refused_role)
    said, warned = capsys.readouterr()
    assert (exited, warned) == (0, ""), said
    assert re.search(r"otherwise than the sandbox does:\n  nowhere\n", said)
    assert "Not looked at" not in said
    for title, _ in aws_check.STEPS:
        assert title in said
    assert re.search(r"Nothing of the run [0-9a-f]{8} is left", said)
    assert remains(aws) == []
    assert list(check.data.iterdir()) == []


# --- what is left after a failure ---


class BrokenError(CheckError):
    pass


def fails(step, stage, *, done):
    if done:
        step(stage)
    raise BrokenError("on purpose")


@pytest.mark.soak
@pytest.mark.parametrize(("place", "done"), [*product(range(STEPS), (False, True))])
def test_a_step_that_fails_leaves_nothing(aws, check, capsys, *, refused_role, place, done):
    check.changing(place, partial(fails, done=done))
    with Minutes(check.data):
        assert check(*PROFILES, "--yes", "--refused-role", refused_role) == 1
    said, warned = capsys.readouterr()
    assert "not finished: on purpose" in said
    assert "on purpose" in warned
    assert "is left" in said
    assert ("Not looked at: " in said) == ((place, done) != (STEPS - 1, True))
    assert remains(aws) == []


@pytest.mark.soak
def test_a_customers_stack_that_is_still_being_created_leaves_nothing(aws, check, monkeypatch):
    def waited(_, what, look, seconds):
        if "customer's stack is complete" in what:
            raise KeyboardInterrupt
        answers.until(what, look, seconds)

    monkeypatch.setattr(Answers, "waited", waited)
    assert check(*PROFILES, "--yes") == 1
    assert remains(aws) == []


def test_without_a_third_account_the_canary_is_left_out_and_what_can_not_be_removed_is_listed(
    aws, check, capsys
):
    role = {}

    def tampered(step, stage):
        step(stage)
        role["name"] = stage.run.broker_role
        iam = root_client(aws, "iam", stage.vendor.id)
        made = iam.create_policy(PolicyName="mine", PolicyDocument=json.dumps(EVERYTHING))
        role["policy"] = made["Policy"]["Arn"]
        iam.attach_role_policy(RoleName=role["name"], PolicyArn=role["policy"])
        raise BrokenError("on purpose")

    check.changing(2, tampered)
    assert check(*PROFILES[:4], "--yes") == 1
    said = capsys.readouterr().out
    assert "in CANARY   nothing: no profile was given" in said
    assert re.search(r"^ +skipped: +no CANARY profile was given$", said, re.MULTILINE)
    assert "Without the canary and the stranger: no CANARY profile was given." in said
    run = role["name"].removeprefix("DeputyCheck-")
    assert f"VENDOR 121200000001: stack deputy-check-{run}-broker (DELETE_FAILED)" in said
    assert f"VENDOR 121200000001: role {role['name']}" in said
    assert f"The stack deputy-check-{run}-broker is DELETE_FAILED:" in said
    assert "detach all policies first" in said, "why"
    assert f"--clean-up {run}" in said
    iam = root_client(aws, "iam", ACCOUNTS["vendor"])
    iam.detach_role_policy(RoleName=role["name"], PolicyArn=role["policy"])
    iam.delete_policy(PolicyArn=role["policy"])
    assert check(*PROFILES, "--clean-up", run) == 0
    assert remains(aws) == []


def begun(data):
    """A check in a process of its own, that has made the broker's stack; and the id of its run."""
    out = data / "out"
    with out.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.aws_check", *PROFILES, "--yes"],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    until(
        lambda: "the stack's tag on its bucket" in out.read_text() or process.poll() is not None,
        "it has begun",
    )
    return process, re.search(r"run ([0-9a-f]{8})", out.read_text())[1]


def test_ctrl_c_cleans_up_and_a_second_one_does_not_hurry_it(aws, check):
    process, run = begun(check.data)
    process.send_signal(signal.SIGINT)
    until(lambda: "Cleaning up" in (check.data / "out").read_text(), "it cleans up")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 1
    said = (check.data / "out").read_text()
    assert "not finished: interrupted" in said
    assert f"Nothing of the run {run} is left" in said
    assert "Traceback" not in said
    assert remains(aws) == []


def test_what_a_killed_run_left_is_named_by_the_next_and_can_be_removed(aws, check, capsys):
    process, run = begun(check.data)
    process.kill()
    process.wait()
    assert f"deputy-check-{run}-broker" in remains(aws)
    cloudformation = root_client(aws, "cloudformation", ACCOUNTS["vendor"])
    topic = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    cloudformation.create_stack(StackName=f"deputy-check-{run}-like", TemplateBody=topic)
    assert check(*PROFILES) == 1, "nobody can be asked"
    assert f"VENDOR still has stacks of the run {run}" in capsys.readouterr().out
    assert check(*PROFILES, "--clean-up", run) == 1
    assert "Left of the run" in capsys.readouterr().out, "a topic of that name"
    left = [name for name in remains(aws) if not name.startswith("arn:")]
    assert left == [f"deputy-check-{run}-like"], "not tagged"
    cloudformation.delete_stack(StackName=f"deputy-check-{run}-like")
    assert remains(aws) == []


# --- before anything is made ---


def test_accounts_that_do_not_fit_are_refused_and_nothing_is_made(aws, check, capsys):
    for vendor, customer, words, why in (
        ("vendor", "vendor", [], "an account of its own"),
        ("vendor", "customer", ["--canary", "customer"], "an account of its own"),
        ("root", "customer", ["--region", "us-east-1"], "no root user assume a role"),
        ("root", "customer", [], "has no region"),
        ("nobody", "customer", [], "nobody"),
        ("vendor", "customer", ["--clean-up", "../etc"], "is not the id of a run"),
        ("vendor", "customer", [], "nobody can be asked"),
    ):
        assert check("--vendor", vendor, "--customer", customer, *words) == 1
        assert why in capsys.readouterr().err
    assert remains(aws) == []


def test_how_long_it_takes_and_what_it_costs_is_said_before_anything_is_made(
    aws, check, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    for answer in ("", "yess"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert check(*PROFILES) == 1
        said = capsys.readouterr().out
        for told in ("about 15 minutes", "a cent at most", *ACCOUNTS.values(), stacks.TAG):
            assert told in said
        assert "Region us-east-1" in said
    assert remains(aws) == []


def blocking(name):
    """An account with that setting of S3's Block Public Access."""
    block = {"PublicAccessBlockConfiguration": {name: True}}
    client = SimpleNamespace(get_public_access_block=lambda **_: block)
    return SimpleNamespace(id="1", client=lambda _: client)


def test_an_account_that_blocks_public_buckets_is_refused():
    for name in ("BlockPublicPolicy", "RestrictPublicBuckets"):
        with pytest.raises(CheckError, match=f"{name}.* refuses a bucket"):
            ensure_public_templates(blocking(name))
    assert ensure_public_templates(blocking("BlockPublicAcls")) is None


def test_each_batch_of_conditions_fits_into_a_trust_policy(monkeypatch):
    """AWS counts 2,048 characters, without white space."""
    lengths = []
    monkeypatch.setattr(trust_conditions.stacks, "complete", lambda *_: None)
    monkeypatch.setattr(trust_conditions, "_PAUSE", 0)

    def changed(**given):
        lengths.append(len(given["PolicyDocument"]))

    client = SimpleNamespace(
        create_stack=lambda **_: None,
        assume_role=lambda **_: None,
        update_assume_role_policy=changed,
    )
    account = SimpleNamespace(id="1" * 12, partition="aws-us-gov", client=lambda _: client)
    stage = Stage(stacks.Run.new(), [account, account], Path())
    stage.broker = account
    trust_conditions.ask_conditions(stage)
    assert len(lengths) == 6
    assert max(lengths) <= 2048


# --- the report ---


def test_other_answers_and_late_ones_are_differences():
    seen = Answers()
    for question, answer in EXPECTED.items():
        seen.note(question, answer)
    seen.took = {what: float(most) for what, most in WITHIN.items()}
    assert (seen.differences(), seen.unasked()) == ([], [])
    seen.note("AssumeRole without an External ID", "allowed")
    seen.took["a new role may be assumed"] = 61
    assert seen.differences() == [
        "AssumeRole without an External ID: allowed (the sandbox: AccessDenied 403)",
        "a new role may be assumed: 61 s (at most 60 s expected)",
    ]
    assert len(Answers().unasked()) == len(EXPECTED) + len(WITHIN)


def test_who_waits_is_told_so_each_quarter_of_a_minute(monkeypatch, capsys):
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: sum(passed), sleep=passed.append)
    monkeypatch.setattr("dev.aws_check.answers.time", clock)
    with pytest.raises(CheckError, match="Not within 60 seconds: the stack is there"):
        answers.until("the stack is there", lambda: None, 60)
    told = re.findall(r"… the stack is there: (\d+) s", capsys.readouterr().out)
    assert len(told) == 3
    for before, later in pairwise(map(int, ["0", *told])):
        assert 15 <= later - before <= 21


def test_a_stack_of_the_check_that_fails_is_named(aws, check, monkeypatch, capsys):
    run = stacks.Run.new()
    s3 = root_client(aws, "s3", "121200000009")
    # The name is global, and taken
    s3.create_bucket(Bucket=f"deputy-check-{run.id}-121200000001")
    monkeypatch.setattr(stacks.Run, "new", classmethod(lambda _: run))
    assert check(*PROFILES, "--yes") == 1
    s3.delete_bucket(Bucket=f"deputy-check-{run.id}-121200000001")
    report = capsys.readouterr()
    assert "TemplateBucket" in report.err
    assert "not finished: " in report.out
    assert "Not looked at: " in report.out
    assert remains(aws) == []
