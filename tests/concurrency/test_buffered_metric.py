"""A buffered histogram counts what a plain one does."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from app.concurrency import group_commit
from app.concurrency.group_commit import BufferedHistogram

AMOUNTS = (0.0, 0.5, 1.0, 1.5, 2.0, 7.0)


def histogram():
    return Histogram(
        "seconds", "Time.", ["source"], buckets=(1, 2), registry=CollectorRegistry()
    ).labels("x")


def samples(child):
    return [
        (sample.name, sample.labels, sample.value)
        for sample in child.collect()[0].samples
        if "created" not in sample.name
    ]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_buffered_histogram_adds_each_observation_once(monkeypatch, is_late):
    plain, child, due = histogram(), histogram(), []
    if is_late:
        monkeypatch.setattr(group_commit, "later", lambda _, work: due.append(work))
    buffered = BufferedHistogram(child)
    for amount in AMOUNTS:
        plain.observe(amount)
        buffered.observe(amount)
    assert len(due) == is_late, "one timer for all of them"
    assert (samples(child) == samples(plain)) is not is_late
    for work in due:
        work()
    buffered.add()  # as at the end of the process
    assert samples(child) == samples(plain)
