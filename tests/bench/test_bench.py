"""The bench measures what it says, and its verdicts fail a missed goal. Its STS serves
tests/honesty, where no connection would be verified if it did not refuse as AWS does.
"""

import re
from types import SimpleNamespace

import pytest

import bench.__main__
from app.limits import request_costs
from bench import costly, instructions, report
from bench.client import BenchError
from bench.goals import GOALS, GROWTH, HONESTY, HOT, MEMORY, Findings, Level, Result
from bench.load import Answers, Question
from bench.organization import Arrived, judge, most_in_a_second
from bench.rounds import Contender, Spread, interleave, ratio


@pytest.mark.parametrize(
    ("goal", "figures", "reached"),
    [
        (HOT, [0.79], Level.MISSED),
        (HOT, [0.8], Level.MUST),
        (HOT, [1.1], Level.MOONSHOT),
        (HONESTY, [0, 0], Level.MOONSHOT),
        (HONESTY, [0, 1], Level.MISSED),
        (GROWTH, [1.05, 1.19], Level.TARGET),
        (MEMORY, [4.1], Level.MISSED),
    ],
)
def test_a_goal_is_reached_as_far_as_its_worst_figure_reaches(goal, figures, reached):
    assert goal.judge("", *figures, values={}).reached is reached


@pytest.mark.parametrize(
    ("changes", "missed"),
    [({}, False), ({"lost": 1}, True), ({"twice": 1}, True), ({"most_calls": 101}, True)],
)
def test_one_account_lost_or_one_call_too_many_is_missed(changes, missed):
    times = {"registered": 9.0, "verified": 12.5, "stacks": 12.6}
    counts = {"accounts": 201, "complete": 201, "lost": 0, "twice": 0, "most_calls": 100}
    result = judge([Arrived(**times, **counts), Arrived(**times, **counts | changes)])
    assert (result.reached is Level.MISSED) == missed


def test_the_busiest_second_may_begin_anywhere():
    assert most_in_a_second([]) == 0
    assert most_in_a_second([2.9, 0.1, 0.9, 1.0, 1.05, 1.89, 2.0]) == 4


def test_the_table_has_every_goal_and_says_which_was_reached():
    results = [HOT.judge("0.87", 0.87, values={}), MEMORY.judge("5 kB", 5, values={})]
    lines = report.table(results).splitlines()[2:]
    for line, goal in zip(lines, GOALS, strict=True):
        for part in (goal.title, *map(goal.step, (Level.MUST, Level.TARGET, Level.MOONSHOT))):
            assert part
            assert part in line
    assert lines[0].endswith(" must")
    assert "not measured" in lines[1]
    assert lines[7].endswith(" MISSED")


@pytest.mark.parametrize(("reached", "status"), [(Level.MISSED, 1), (Level.MUST, 0)])
def test_a_missed_must_is_a_failure(monkeypatch, tmp_path, capsys, reached, status):
    monkeypatch.setattr(bench.__main__, "HOME", tmp_path)
    findings = Findings(
        [Result(5, "1.00", Level.TARGET), Result(8, "2.00", reached, {"ratio": Spread(2, 1, 3)})]
    )
    stage = SimpleNamespace(findings=findings, about={"machine": {"cores": 2}})
    assert bench.__main__.conclude(stage, tmp_path / "also" / "bench.json") == status
    assert (tmp_path / "last.json").read_text() == (tmp_path / "also" / "bench.json").read_text()
    assert ("row 8" in capsys.readouterr().err) == bool(status)


def test_a_measurement_that_fails_is_a_failure_and_keeps_the_others(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench.__main__, "HOME", tmp_path)

    def cold(_stage):
        raise BenchError("a 503")

    monkeypatch.setitem(bench.__main__.SECTIONS, "cold", (cold, ""))
    stage = SimpleNamespace(
        findings=Findings([Result(1, "0.70", Level.TARGET)]), about={"machine": {}}, say=print
    )
    bench.__main__.measure(stage, "cold")
    assert bench.__main__.conclude(stage, None) == 2
    output = capsys.readouterr()
    assert "0.70" in output.out
    assert "cold failed: a 503" in output.err


class Wrk:
    """A load generator with given answers, one for each round."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, port, questions, seconds, **_):
        return self.answers.pop(0)


def answers(answered, *, refused=0, lost=0):
    return Answers(answered, answered, 1.0, 1000.0, 2000.0, refused, lost)


def contender(name):
    server = SimpleNamespace(port=1, pids=list)
    return Contender(name, server, lambda: [Question("GET", "/")])


@pytest.mark.parametrize("bad", [answers(100, refused=1), answers(100, lost=1), answers(0)])
def test_an_answer_that_is_not_a_200_fails_the_bench(bad):
    with pytest.raises(BenchError, match="Deputy"):
        contender("Deputy").run(Wrk(bad), 1)


def test_without_valgrind_the_count_of_instructions_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt-get install valgrind"):
        instructions.measure(SimpleNamespace())


def test_a_ratio_is_of_the_rounds_that_ran_beside_each_other():
    first, second = contender("first"), contender("second")
    # Forward, backward, forward: first, second; second, first; first, second. The machine is three
    # times as fast in the middle.
    wrk = Wrk(*map(answers, (50, 100, 300, 150, 60, 100)))
    interleave(wrk, (first, second), rounds=3, seconds=1)
    assert ratio(first, second, lambda done: done.per_second) == Spread(0.5, 0.5, 0.6)


def test_the_costliest_request_of_each_route_is_measured(app):
    """Prices and limits come from there."""
    measured = {
        f"{method} {re.sub(r'{[a-z]+}', '<>', path.partition('?')[0])}"
        for method, path, _ in costly.REQUESTS
    }
    rules = [rule for rule in app.url_map.iter_rules() if not rule.rule.startswith("/docs")]
    routes = {
        f"{method} {re.sub('<[^>]+>', '<>', rule.rule)}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD"}  # None: whatever no other rule serves
    }
    assert measured == routes


def test_each_price_is_of_a_view(app):
    assert request_costs._PRICES.keys() <= {view.__name__ for view in app.view_functions.values()}
