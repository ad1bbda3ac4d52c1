"""The sandbox patches internals of moto, and was read beside this version of it."""

from importlib.metadata import version


def test_the_version_is_the_one_that_was_read():
    assert version("moto") == "5.2.5"
