"""Rows 1 to 4 and 16: cached credentials, compared with bare Flask and with metadataproxy."""

from collections.abc import Sequence
from typing import Any

from bench import peer
from bench.goals import AGAINST, HOT, HOT_P99, HOT_PEER, Result, shown
from bench.rounds import Contender, Round, facts_of, interleave, ratio
from bench.stage import Populated, Stage

_WARM = 0.002  # STS calls per answer, at most, once all sessions are cached
_WARM_ROUNDS = 6


def measure(stage: Stage) -> None:
    deputy = contender("Deputy", stage.on_postgres)
    bare = Contender("bare Flask", stage.bare, stage.on_postgres.hot)
    other = Contender("metadataproxy hot", stage.peer(cold=False), lambda: [peer.QUESTION])
    everybody = (bare, deputy, other)
    warm(stage, deputy)
    for baseline in (bare, other):
        baseline.run(stage.wrk, 1)
    calls = stage.sts.calls()["AssumeRole"]
    stage.findings.facts["hot"] = compare(stage, "hot", everybody) | {
        "STS calls in these rounds": stage.sts.calls()["AssumeRole"] - calls,
        "CPU a request / bare Flask": ratio(deputy, bare, lambda figures: figures.cpu_us),
        "the same, with PostgreSQL's own": ratio(
            deputy, bare, lambda figures: figures.cpu_us + figures.database_cpu_us
        ),
        "the same, at the best round of each": _best(deputy) / _best(bare),
    }
    stage.findings.results += _results(bare, deputy, other)
    if stage.against:
        _compare_commits(stage)


def _compare_commits(stage: Stage) -> None:
    """Measure row 16.

    The two commits differ by a few percent, and rounds by more. So only they take turns, for twice
    as many rounds.
    """
    here = contender("this commit", stage.on_postgres)
    there = contender(f"commit {stage.against}", stage.at_other_commit)
    warm(stage, here, there)
    rounds, seconds = 2 * stage.scale.rounds, stage.scale.seconds
    stage.say(f"hot: {rounds} rounds of {seconds} s for each of {here.name}, {there.name}")
    interleave(stage.wrk, (here, there), rounds=rounds, seconds=seconds)
    rate = ratio(here, there, _rate)
    stage.findings.results.append(AGAINST.judge(shown(rate), rate.median, values={"ratio": rate}))
    stage.findings.facts["hot, this commit and another"] = facts_of((here, there)) | {
        "CPU a request / that of the other": ratio(here, there, lambda figures: figures.cpu_us)
    }


def compare(stage: Stage, name: str, contenders: Sequence[Contender]) -> dict[str, Any]:
    """Run the scale's rounds of these servers, and return their figures."""
    scale = stage.scale
    names = ", ".join(contender.name for contender in contenders)
    stage.say(f"{name}: {scale.rounds} rounds of {scale.seconds} s for each of {names}")
    interleave(stage.wrk, contenders, rounds=scale.rounds, seconds=scale.seconds)
    return facts_of(contenders)


def contender(name: str, populated: Populated) -> Contender:
    return Contender(name, populated.server, populated.hot, database=populated.database)


def warm(stage: Stage, *contenders: Contender) -> None:
    """Send load until both web processes have cached all sessions, at most `_WARM_ROUNDS` times."""
    for contender in contenders:
        for number in range(_WARM_ROUNDS):
            stage.say(f"{contender.name}: warming up, round {number + 1}")
            before = stage.sts.calls()["AssumeRole"]
            answered = contender.run(stage.wrk, 2).answered
            if stage.sts.calls()["AssumeRole"] - before <= _WARM * answered:
                break


def _best(contender: Contender) -> float:
    return min(figures.cpu_us for figures in contender.rounds)


def _rate(figures: Round) -> float:
    return figures.per_second


def _results(bare: Contender, deputy: Contender, other: Contender) -> list[Result]:
    measured = (
        (HOT, ratio(deputy, bare, _rate)),
        (HOT_P99, ratio(deputy, bare, lambda figures: figures.p99_us)),
        (HOT_PEER, ratio(deputy, other, _rate)),
    )
    return [
        goal.judge(shown(spread), spread.median, values={"ratio": spread})
        for goal, spread in measured
    ]
