"""The health checks that only `doctor` runs.

They are about settings, AWS's clock, the vendor's own resources, logs, and the cache. Those of
registration are in app/health/registration_checks.py.
"""

from datetime import timedelta
from functools import partial

from sqlalchemy import func, select, text

from app.audit import months
from app.aws import vendor_resources
from app.aws.errors import Unavailable
from app.clock import CLOCKS_APART, now
from app.config import Config
from app.health.checks import HealthCheck, HealthFinding, failed, ok, skipped, warning
from app.health.registration_checks import STACK, registration_checks
from app.store.database import Database
from app.store.models import AuditEvent, Connection, ConnectionStatus, Tenant, TenantStatus

_LETS_NOBODY_IN = ConnectionStatus.SUSPENDED, ConnectionStatus.ENDED, ConnectionStatus.DELETED
_SIGNED = 300.0  # seconds; AWS refuses a signature if the clocks differ by more
# A month is detached as a whole, so its first events are older than the retention
_BEHIND = timedelta(days=33)


def vendor_checks(config: Config, database: Database) -> list[HealthCheck]:
    """Return the checks of one deployment that readiness leaves out."""
    checks = [
        HealthCheck("settings", partial(_settings, config)),
        HealthCheck("aws_clock", partial(_aws_clock, config)),
        HealthCheck("session_duration", partial(_session_duration, config)),
        HealthCheck("may_assume", partial(_may_assume, config, database), "aws migrations"),
        HealthCheck("iam", partial(_iam, config)),
        HealthCheck("bucket", partial(_bucket, config)),
        *registration_checks(config),
        HealthCheck("rights", partial(_rights, database)),
        HealthCheck("audit_log", partial(_audit_log, config, database), "migrations"),
        HealthCheck("cache", partial(_cache, config)),
    ]
    if config.proofs.canary_role_arn is None:
        checks.append(HealthCheck("prober", lambda: _NO_CANARY))
    return checks


_NO_CANARY = skipped(
    "No canary is configured, so nothing notices a policy on your side that makes every role look"
    " safe.",
    "Launch cloudformation/canary.yaml in another account of yours (docs/install.md, Canary and"
    " stranger).",
)


def _settings(config: Config) -> HealthFinding:
    if config.likely_mistakes:
        return warning(
            " ".join(config.likely_mistakes), "Change these settings, and restart every process."
        )
    return ok("Every setting is valid, and none looks like a mistake.")


def _aws_clock(config: Config) -> HealthFinding:
    try:
        _, theirs = vendor_resources.bucket(config)
    except Unavailable:
        theirs = None
    if theirs is None:
        return skipped(
            "S3 did not say what time it is.", "Look at the network, and at the check bucket."
        )
    ahead = (now() - theirs).total_seconds()
    side = "ahead of" if ahead > 0 else "behind"
    observation = f"This machine's clock is {abs(ahead):.0f} s {side} AWS's."
    if abs(ahead) > _SIGNED:
        return failed(f"{observation} AWS refuses every call.", "Set the machine's clock by NTP.")
    if abs(ahead) > CLOCKS_APART:
        return warning(
            observation,
            "Set the machine's clock by NTP, before AWS refuses every call (from 300 s on).",
        )
    return ok(f"This machine's clock agrees with AWS's to {CLOCKS_APART:.0f} s.")


def _session_duration(config: Config) -> HealthFinding:
    why = "the broker is a user, so no role is chained"
    if config.aws.broker.is_role:
        why = "the broker is a role, and AWS limits role chaining"
    return ok(f"Sessions last {config.aws.max_session_seconds} s at most: {why}.")


def _may_assume(config: Config, database: Database) -> HealthFinding:
    with database.read() as db:
        in_use = (
            Connection.status.not_in(_LETS_NOBODY_IN),
            Connection.tenant.has(Tenant.status == TenantStatus.ACTIVE),
        )
        last = db.scalar(select(func.max(Connection.verified_at)).where(*in_use))
    if last is None:
        return skipped(
            "No customer's role has let the broker in yet.",
            "Connect a first role (docs/onboarding.md).",
        )
    if last < now() - timedelta(seconds=config.proofs.proof_max_age):
        return failed(
            f"The last role let the broker in at {last:%Y-%m-%d %H:%M} UTC, so nothing is issued"
            " any more.",
            "Look at workers and prober; then at sts:AssumeRole in the broker's identity policy,"
            " its permissions boundary, and the service control policies of its account.",
        )
    return ok(f"A role let the broker in at {last:%Y-%m-%d %H:%M} UTC.")


def _iam(config: Config) -> HealthFinding:
    try:
        vendor_resources.reach_iam(config)
    except Unavailable:
        return failed(
            "IAM does not answer, so no proof reads a role's trust policy.",
            "Look at the network: IAM has one endpoint for all regions, which only a NAT gateway or"
            " a proxy reaches from most of them.",
        )
    return ok("IAM answers.")


def _bucket(config: Config) -> HealthFinding:
    try:
        status, _ = vendor_resources.bucket(config)
    except Unavailable:
        return failed(
            "S3 does not answer.", "Look at the network: S3 of AWS_REGION must be reachable."
        )
    name = config.aws.template_bucket
    if status == 404:
        return failed(
            f"There is no bucket {name}.",
            f"{STACK}: compare DEPUTY_TEMPLATE_BUCKET with TemplateBucket.",
        )
    if status not in {200, 403}:
        return failed(
            f"The bucket {name} is not in {config.aws.region}, so launch links do not work.",
            "Set AWS_REGION to the region of the stack of cloudformation/broker.yaml.",
        )
    return ok(
        f"The bucket {name} is there. Whether customers can read it, the check templates says."
    )


_NO_RIGHTS = """
SELECT relname FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
AND relname NOT LIKE 'audit_events_%' AND relname <> 'alembic_version'
AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
ORDER BY relname
"""  # rows of the log's partitions are written through audit_events


def _rights(database: Database) -> HealthFinding:
    """Check that a database role that does not own the tables may read and write them."""
    with database.read() as db:
        closed = db.scalars(text(_NO_RIGHTS)).all()
    if closed:
        return failed(
            f"This database role may not both read and write {', '.join(closed[:5])}.",
            "Grant it its rights again, as after each migrate (docs/install.md, Database).",
        )
    return ok("This database role may read and write every table.")


def _audit_log(config: Config, database: Database) -> HealthFinding:
    """Check that housekeeping creates partitions ahead and deletes events after their retention.

    The retention is DEPUTY_AUDIT_RETENTION_DAYS.
    """
    days = config.database.audit_retention_days
    with database.read() as db:
        oldest = db.scalar(select(AuditEvent.at).order_by(AuditEvent.id).limit(1))
        parts = months.partitions(db)
    if not parts.next_is_made:
        return warning("The audit log has no partition for the next month.", _HOUSEKEEPING)
    if days and oldest and oldest < now() - timedelta(days=days) - _BEHIND:
        return warning(
            f"The oldest event is of {oldest:%Y-%m-%d}, and events are kept for {days} days.",
            _HOUSEKEEPING,
        )
    if parts.detached:
        return warning(
            f"{len(parts.detached)} tables are detached from the audit log:"
            f" {', '.join(parts.detached[:5])}.",
            "Archive and drop them (docs/monitoring.md, Archive a month).",
        )
    return ok(f"Events are kept for {days} days." if days else "All events are kept.")


_HOUSEKEEPING = (
    "Start a background worker, or look for worker.failed, worker.waiting and audit.months_wait in"
    " its log."
)


def _cache(config: Config) -> HealthFinding:
    if config.database.cache_url is None:
        return skipped("No shared cache is configured: each process has its own.")
    # Imported lazily: Redis's client takes long to load
    from app.cache.shared_cache import SharedCache  # noqa: PLC0415

    cache = SharedCache(config.database.cache_url)
    if not cache.ask(cache.client.ping):
        return warning(
            "The shared cache does not answer. Deputy works without it: each process has its own"
            " limits and sessions.",
            "Look at DEPUTY_CACHE_URL, and at the Redis or Valkey that it names.",
        )
    return ok("The shared cache answers.")
