"""One `make run` for all who only look at it. Its end is looked at too."""

import shutil
from collections.abc import Iterator

import pytest

from app.permissions import permission_sets
from tests.dev.make_run import DOUBTFUL, ODD, PERSONS_AWS, TWINS, Run, assert_nothing_left, new_key


@pytest.fixture(scope="package")
def run(tmp_path_factory) -> Iterator[Run]:
    """Started by a person with settings and AWS credentials of their own; ended by Ctrl-C. `make
    demo` has neither.
    """
    home, key = tmp_path_factory.mktemp("run"), new_key()
    with Run("run", home / "data", **given(home, key), **PERSONS_AWS) as run:
        run.ready()
        assert run.admin_key == key
        yield run
        assert run.interrupt() == 0
        assert run.output.rstrip().endswith("stopping …")
        assert "Traceback" not in run.output
        assert_nothing_left(run)
        assert not (run.data / "run.json").exists()
        assert not (run.data / "env").exists()


def given(home, key):
    """Settings, two of them in files, one variable that is not a setting, and a folder of
    permission sets.
    """
    shutil.copytree(permission_sets.FOLDER, home / "sets")
    settings = TWINS | {
        "DEPUTY_BOOTSTRAP_KEY_FILE": str(home / "key"),
        "DEPUTY_VENDOR_ACCOUNT_IDS_FILE": str(home / "ids"),
        "DEPUTY_PERMISSION_SETS": str(home / "sets"),
        "DEPUTY_DEFAULT_PERMISSION_SET": "inventory",
        DOUBTFUL: ODD,
    }
    (home / "ids").write_text(settings.pop("DEPUTY_VENDOR_ACCOUNT_IDS") + "\n")
    (home / "key").write_text(key + "\n")
    return settings
