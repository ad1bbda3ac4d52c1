"""The locks, as pip reads them."""

import re
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def pins_of(lock):
    return re.findall(r"^[^\s#].*?(?= \\$)", (ROOT / lock).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "lock", ["requirements.txt", "requirements-publish.txt", "requirements-dev.txt"]
)
def test_an_extra_that_a_package_needs_is_pinned_with_it(lock):
    """pip before 23.3 takes the newest `coverage[toml]` though `coverage` is pinned, and then
    refuses it for its hash: an install that worked yesterday fails on the day of a release.
    """
    pins = [Requirement(pin) for pin in pins_of(lock)]
    pinned = {canonicalize_name(pin.name): pin.extras for pin in pins}
    missing = {
        f"{canonicalize_name(need.name)}[{','.join(need.extras)}] for {found.name}"
        for found in distributions()
        if (name := canonicalize_name(found.name)) in pinned
        for need in map(Requirement, found.requires or ())
        if need.extras
        and (
            not need.marker or any(need.marker.evaluate({"extra": e}) for e in {"", *pinned[name]})
        )
        if not need.extras <= pinned.get(canonicalize_name(need.name), set())
    }
    assert pins
    assert not missing


def test_publishing_and_development_have_the_services_own_versions_and_more():
    """Without extras and markers, which differ with what else is pinned."""
    service, publishing, development = (
        {re.sub(r"\[.*?\]| ;.*", "", pin) for pin in pins_of(f"requirements{name}.txt")}
        for name in ("", "-publish", "-dev")
    )
    assert service < publishing < development
