"""The health checks of the path on which customers' stacks register their roles.

A stack's message goes to a topic in its region. The topic's subscription sends it to the queue, if
the queue's policy allows that.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial

from app.aws import regions, vendor_resources
from app.aws.errors import Unavailable
from app.aws.vendor_resources import AbsentError, MayNotLookError, Queue, Subscription, allowing
from app.clock import seconds_between
from app.config import Config
from app.health import heartbeats
from app.health.checks import (
    LATE,
    START,
    HealthCheck,
    HealthFinding,
    Status,
    failed,
    ok,
    skipped,
    warning,
)
from app.permissions.set_rules import texts
from app.store.database import Database, database_now
from app.strict_json import JsonObject

STACK = (
    "Launch or update the stack of cloudformation/broker.yaml; its outputs are the values of these"
    " settings"
)
_LAUNCH = f"{STACK}."
_THREADS = 8  # topics that are looked at concurrently
_NAMED = 5  # topics whose findings are shown
_WORST_FIRST = (Status.FAILED, Status.WARNING, Status.SKIPPED, Status.OK)
# Operators that compare an ARN with values or patterns
_COMPARING = {"arnequals", "arnlike", "stringequals", "stringlike"}
_NO_TOPIC = skipped(
    "No registration topic is configured, so customers' stacks do not register by themselves.",
    "Set DEPUTY_REGISTRATION_TOPIC_ARN and DEPUTY_REGISTRATION_QUEUE_URL to the outputs of"
    " cloudformation/broker.yaml.",
)
_MAY_NOT_LOOK = skipped(
    "The broker may not look at it.", f"{STACK}: this release's template allows it."
)

ReadQueue = Callable[[], Queue]


def registration_checks(config: Config) -> list[HealthCheck]:
    return [
        HealthCheck("topic", partial(_guarded, _topics, config), "aws"),
        HealthCheck("queue", partial(_guarded, _queue, config), "aws"),
        HealthCheck("dead_letters", partial(_guarded, _dead_letters, config), "aws queue"),
    ]


def _guarded(look: Callable[[Config, ReadQueue], HealthFinding], config: Config) -> HealthFinding:
    """Check resources of the vendor that may be absent or closed to Deputy's credentials."""
    region, url = config.aws.registration_queue_region, config.aws.registration_queue_url
    if not config.aws.registration_topic_arns or url is None:
        return _NO_TOPIC
    try:
        return look(config, partial(vendor_resources.queue, region, url))
    except MayNotLookError:
        return _MAY_NOT_LOOK
    except AbsentError:
        return failed(
            "There is no queue of DEPUTY_REGISTRATION_QUEUE_URL, so stacks wait until they fail.",
            _LAUNCH,
        )
    except Unavailable:
        return warning(
            "AWS does not answer.", f"Look at the network: SQS of {region} must be reachable."
        )


def _topics(config: Config, read_queue: ReadQueue) -> HealthFinding:
    """Check each topic and its subscription, and return the worst findings together."""
    try:
        queue_arn = read_queue().arn
    except AbsentError:
        queue_arn = None
    topics = config.aws.registration_topics
    with ThreadPoolExecutor(_THREADS) as pool:
        findings = list(pool.map(partial(_topic, config, queue_arn), topics))
    status = min((finding.status for finding in findings), key=_WORST_FIRST.index)
    if status is Status.OK:
        return ok(
            f"Customers may publish to the topics in {', '.join(topics)}, and each sends to the"
            " queue."
        )
    worst = [finding for finding in findings if finding.status is status]
    shown = worst[:_NAMED]
    observations = [*dict.fromkeys(finding.seen for finding in shown)]
    if len(worst) > len(shown):
        observations.append(f"So it is in {len(worst) - len(shown)} further regions.")
    to_do = dict.fromkeys(finding.next for finding in shown)
    return HealthFinding(status, " ".join(observations), " ".join(filter(None, to_do)))


def _topic(config: Config, queue_arn: str | None, region: str) -> HealthFinding:
    arn = config.aws.registration_topics[region]
    try:
        topic = vendor_resources.topic(arn, queue_arn)
    except MayNotLookError:
        return _MAY_NOT_LOOK
    except AbsentError:
        return failed(
            f"There is no topic of DEPUTY_REGISTRATION_TOPIC_ARN in {region}, so stacks there"
            " fail.",
            _launch(config, region, queue_arn),
        )
    except Unavailable:
        return warning(
            f"SNS in {region} does not answer.",
            f"Look at the network: SNS of {region} must be reachable, and the region enabled in"
            " your account.",
        )
    publishers = [statement.get("Principal") for statement in allowing(topic.policy, "sns:Publish")]
    if "*" not in publishers and {"AWS": "*"} not in publishers:
        return failed(
            f"The policy of the topic in {region} does not let customers publish, so their stacks"
            " fail.",
            _launch(config, region, queue_arn),
        )
    if queue_arn is None:
        return skipped("Not looked at: queue comes first.")
    return _subscription(region, arn, queue_arn, topic.subscription)


def _subscription(
    region: str, topic_arn: str, queue_arn: str, subscription: Subscription | None
) -> HealthFinding:
    subscribe = (
        f"Subscribe the queue to the topic, in the queue's account: aws sns subscribe --region"
        f" {region} --topic-arn {topic_arn} --protocol sqs --notification-endpoint {queue_arn}"
    )
    if subscription is None:
        return failed(
            f"The topic in {region} does not send to the queue of DEPUTY_REGISTRATION_QUEUE_URL, so"
            " stacks wait until they fail.",
            subscribe,
        )
    if subscription.arn is None:
        return failed(
            f"The queue's subscription of the topic in {region} is not confirmed, so stacks wait"
            " until they fail.",
            subscribe,
        )
    if subscription.raw:
        return failed(
            f"The topic in {region} sends raw messages, which do not name the topic, so they become"
            " dead letters.",
            f"Run: aws sns set-subscription-attributes --region {region} --subscription-arn"
            f" {subscription.arn} --attribute-name RawMessageDelivery --attribute-value false",
        )
    return ok(f"The topic in {region} sends to the queue.")


def _launch(config: Config, region: str, queue_arn: str | None) -> str:
    """Return the advice on how to create or repair the topic of a region."""
    if region == config.aws.registration_queue_region:
        return _LAUNCH
    # CloudFormation does not notice what was changed by hand, and would change nothing
    return (
        f"If the stack deputy-region is in {region} already, delete it: the topic will have the"
        f" same ARN. Then run: aws cloudformation deploy --region {region} --stack-name"
        " deputy-region --template-file cloudformation/broker-region.yaml --parameter-overrides"
        f" RegistrationQueueArn={queue_arn or '<the output of broker.yaml>'}"
    )


def _queue(config: Config, read_queue: ReadQueue) -> HealthFinding:
    queue, home = read_queue(), config.aws.registration_queue_region
    topics = config.aws.registration_topics
    statements = list(allowing(queue.policy, "sqs:SendMessage"))
    refused = [
        region
        for region, arn in topics.items()
        if not any(_lets_send(statement, arn, home) for statement in statements)
    ]
    if refused:
        further = ",".join(region for region in topics if region != home)
        return failed(
            f"The queue's policy does not let the topics in {', '.join(refused)} send to it, so"
            " stacks there wait until they fail.",
            f"Run: aws cloudformation deploy --region {home} --stack-name <its stack>"
            " --template-file cloudformation/broker.yaml --capabilities CAPABILITY_NAMED_IAM"
            f" --parameter-overrides RegistrationRegions={further}",
        )
    if queue.dead_letter_url is None:
        return warning(
            "The queue has no dead-letter queue: a message that fails comes again for days.",
            _LAUNCH,
        )
    return ok(f"Every topic may send to the queue, in which {queue.messages} messages wait.")


def _lets_send(statement: JsonObject, topic_arn: str, queue_region: str) -> bool:
    """Return whether a statement lets SNS send a topic's messages to the queue."""
    principal = statement.get("Principal")
    if isinstance(principal, dict):
        allowed = texts(principal.get("Service")) + texts(principal.get("AWS"))
    else:
        allowed = texts(principal)
    if {"*", regions.sns_sender(topic_arn, queue_region)}.isdisjoint(allowed):
        return False
    for operator, tests in statement.get("Condition", {}).items():
        for key, patterns in tests.items():
            compares = operator.lower() in _COMPARING and key.lower() == "aws:sourcearn"
            if compares and not any(_is_like(topic_arn, pattern) for pattern in texts(patterns)):
                return False
    return True


def _is_like(arn: str, pattern: str) -> bool:
    """Return whether each part of an ARN matches the same part of the pattern."""
    parts, patterns = arn.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _dead_letters(config: Config, read_queue: ReadQueue) -> HealthFinding:
    url = read_queue().dead_letter_url
    if url is None:
        return skipped("There is no dead-letter queue.")
    messages = vendor_resources.queue(config.aws.registration_queue_region, url).messages
    if messages:
        return warning(
            f"{messages} messages could not be answered.",
            "Look at them for stacks of accounts that you know, whose launch has failed; then purge"
            " the queue. Anybody may publish to the topics, so ignore the others.",
        )
    return ok("The dead-letter queue is empty.")


def check_registrations(database: Database) -> HealthFinding:
    with database.read() as db:
        read_at, oldest = database_now(db), heartbeats.oldest_unanswered(db)
    if oldest is None:
        return warning("No background worker has asked the registration queue.", START)
    age = seconds_between(oldest, read_at)
    if age > LATE:
        return warning(
            f"The oldest unanswered message of a stack may be {age:.0f} s old.",
            "Look for worker.waiting and registration.unanswered in a background worker's log.",
        )
    return ok(f"No unanswered message of a stack is older than {age:.0f} s.")
