"""Rows 1 to 4: issuing cached credentials, beside bare Flask and beside metadataproxy."""

from bench import peer
from bench.goals import AGAINST, HOT, HOT_P99, HOT_PEER, HOT_SQLITE, Result, shown
from bench.rounds import Contender, Round, interleave, ratio
from bench.stage import Populated, Stage

_WARM = 0.002  # at most so many STS calls for each answer
_WARM_ROUNDS = 6


def measure(stage: Stage) -> None:
    deputy = contender("Deputy on PostgreSQL", stage.on_postgres)
    sqlite = contender("Deputy on SQLite", stage.on_sqlite)
    bare = Contender("bare Flask", stage.bare, stage.on_postgres.hot)
    other = Contender("metadataproxy hot", stage.peer(cold=False), lambda: [peer.QUESTION])
    before = (
        [contender(f"Deputy at {stage.against}", stage.at_other_commit)] if stage.against else []
    )
    everybody = (bare, deputy, *before, sqlite, other)
    warm(stage, deputy, sqlite, *before)
    for one in (bare, other):
        one.run(stage.wrk, 1)
    scale = stage.scale
    stage.say(
        f"hot: {scale.rounds} rounds of {scale.seconds} s for each of"
        f" {', '.join(c.name for c in everybody)}"
    )
    calls = stage.sts.calls()["AssumeRole"]
    interleave(stage.wrk, everybody, rounds=scale.rounds, seconds=scale.seconds)
    stage.found.facts["hot"] = {one.name: one.facts() for one in everybody} | {
        "STS calls in these rounds": stage.sts.calls()["AssumeRole"] - calls,
        "CPU a request, on PostgreSQL / bare Flask": ratio(deputy, bare, lambda one: one.cpu_us),
        "the same, with PostgreSQL's own": ratio(
            deputy, bare, lambda one: one.cpu_us + one.database_cpu_us
        ),
        "the same, at the best round of each": _best(deputy) / _best(bare),
    }
    stage.found.results += _results(bare, deputy, sqlite, other)
    for one in before:
        found = ratio(deputy, one, _rate)
        stage.found.results.append(
            AGAINST.judge(shown(found), found.median, values={"ratio": found})
        )
        cost = ratio(deputy, one, lambda each: each.cpu_us)
        stage.found.facts["hot"][f"CPU a request / {one.name}"] = cost


def contender(name: str, populated: Populated) -> Contender:
    return Contender(name, populated.server, populated.hot, database=populated.database)


def warm(stage: Stage, *contenders: Contender) -> None:
    """Send load until both web processes have cached all sessions, at most `_WARM_ROUNDS` times."""
    for one in contenders:
        for number in range(_WARM_ROUNDS):
            stage.say(f"{one.name}: warming up, round {number + 1}")
            before = stage.sts.calls()["AssumeRole"]
            answered = one.run(stage.wrk, 2).answered
            if stage.sts.calls()["AssumeRole"] - before <= _WARM * answered:
                break


def _best(contender: Contender) -> float:
    return min(one.cpu_us for one in contender.rounds)


def _rate(one: Round) -> float:
    return one.per_second


def _results(
    bare: Contender, deputy: Contender, sqlite: Contender, other: Contender
) -> list[Result]:
    measured = (
        (HOT, ratio(deputy, bare, _rate)),
        (HOT_P99, ratio(deputy, bare, lambda one: one.p99_us)),
        (HOT_SQLITE, ratio(sqlite, bare, _rate)),
        (HOT_PEER, ratio(deputy, other, _rate)),
    )
    return [
        goal.judge(shown(found), found.median, values={"ratio": found}) for goal, found in measured
    ]
