"""One `make run` for all who only look at it. Its end is looked at too."""

from collections.abc import Iterator

import pytest

from tests.dev.make_run import PERSONS_AWS, Run, assert_nothing_left, new_key


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Started by a person who has chosen the admin key, and has AWS credentials of their own; ended by Ctrl-C."""
    key = new_key()
    with Run("run", tmp_path_factory.mktemp("run") / "data", DEPUTY_BOOTSTRAP_KEY=key, **PERSONS_AWS) as run:
        run.ready()
        assert run.admin_key == key
        yield run
        assert run.interrupt() == 0
        assert run.output.rstrip().endswith("stopping …")
        assert "Traceback" not in run.output
        assert_nothing_left(run)
        assert not (run.data / "run.json").exists()
        assert not (run.data / "env").exists()
