"""A pytest plugin: every secret that the suite issues is looked for in everything that the suite
logs.

What is logged is what is written to standard error, by this process and by those that inherit it,
and the log files that tests hand to `watch`. Secrets are noted where they are made or answered;
three kinds are known by their form, so those that another process issued are found as well.
External IDs are no secrets. A test that logs a secret fails; its name is told, the secret is not.
"""

import re
from contextlib import suppress

import pytest

# A secret is kept in blocks, and each place of each word is compared with them. So whatever is
# logged of it is found, if it is twice as long, and whatever stands around it.
_BLOCK = 12
_BLOCKS = 5  # of the longest ones: a session token has 300 characters
_WORD = re.compile(rf"[A-Za-z0-9+/_-]{{{_BLOCK},}}")
_FORMS = {
    "an API key": re.compile(r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"),
    "an onboarding link": re.compile(r"/onboard/[A-Za-z0-9_-]{43}"),
    "a signed URL": re.compile(r"[?&](?:X-Amz-)?Signature=[^&\s\"]{8,}"),
}
_LOGGED = pytest.StashKey[bool]()  # on a test that logged a secret
_blocks = {}  # the kind of secret that each is of
_watched = {}  # and how much of it was read


def note(kind, secret):
    """From now on, it may not be logged."""
    for start in range(0, min(len(secret) - _BLOCK + 1, _BLOCK * _BLOCKS), _BLOCK):
        _blocks[secret[start : start + _BLOCK]] = kind


def watch(path):
    """A log file of a process that a test has started."""
    _watched[path] = 0


def kinds_in(text):
    """The kinds of secrets that the text holds."""
    found = {kind for kind, form in _FORMS.items() if form.search(text)}
    for word in _WORD.findall(text):
        places = [word[start : start + _BLOCK] for start in range(len(word) - _BLOCK + 1)]
        if not _blocks.keys().isdisjoint(places):
            found |= {_blocks[place] for place in places if place in _blocks}
    return found


def noting(kind, inner, secrets_of):
    """The function, whose answers hold secrets."""

    def wrapped(*args, **kwargs):
        answer = inner(*args, **kwargs)
        for secret in secrets_of(answer):
            note(kind, secret)
        return answer

    return wrapped


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    title = f"Captured stderr {call.when}"
    logged = [text for name, text in report.sections if name == title]
    if call.when == "teardown":
        logged += [_news(path) for path in _watched]
    found = {kind for text in logged for kind in kinds_in(text)}
    if found:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} logged {', '.join(sorted(found))} ({call.when})"
        item.stash[_LOGGED] = True
    if item.stash.get(_LOGGED, False):  # the reports that follow show it again
        report.sections = [
            (name, text) for name, text in report.sections if not name.startswith("Captured stderr")
        ]
    return report


def _news(path):
    with suppress(OSError):
        if path.stat().st_size > _watched[path]:
            with path.open("rb") as log:
                log.seek(_watched[path])
                text = log.read()
            _watched[path] += len(text)
            return text.decode(errors="replace")
    return ""
