"""The composition root, which creates all objects of a process. It does not import Flask."""

from functools import cache, partial

from app import log
from app.approvals.approvals import Approvals
from app.audit.log import AuditLog
from app.aws import stack_messages, sts
from app.config import Config
from app.connections import connections, listing
from app.diagnosis import diagnosis
from app.health.checks import Health, HealthCheck, check_due, check_templates, own_checks
from app.health.doctor_checks import vendor_checks
from app.health.registration_checks import check_registrations
from app.idempotency.attempts import IdempotencyKeys
from app.identity.api_keys import ApiKeys
from app.identity.key_uses import KeyUses
from app.imports.imports import Imports
from app.issuing import authorization, issue, session_cache, session_origins
from app.limits import refusal_events, tenant_share
from app.limits.counting_in_database import Quotas
from app.limits.counting_in_memory import Rates
from app.limits.limits import KEYS
from app.log import logger
from app.onboarding import kit, page_links, publication, registrations
from app.permissions.permission_sets import PermissionSets
from app.proofs import canary, proof_queue, schedule, verification
from app.rotation import rotations
from app.store.database import Database
from app.tenants import tenants
from app.webhooks import delivery, endpoint_secrets, endpoints, redelivery, retention


def begin(config: Config) -> None:
    """Set up the log, and log likely mistakes in the settings. Each process calls this first."""
    log.configure(config.service.log_level)
    for doubt in config.likely_mistakes:
        logger.warning("settings.doubtful", detail=doubt)


class Services:
    """All long-lived objects of a process.

    Creating them connects to nothing. Raises ConfigError.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.db = db = Database(config.database.database_url)
        self.publication = publication.Publication(config)
        sets = self.publication.sets
        names, own_roles = sts.ProofNames(config.database.secret_keys), config.proofs.own_roles
        door = sts.Sts(config.aws.region, config.aws.broker, names, *own_roles)
        interval, prober = schedule.RoutineInterval(db, config), canary.Canary(db, config)
        sessions, self.rates = _shared(config)
        self.quotas, self.idempotency = Quotas(db, config), IdempotencyKeys(db)
        self.tenant_share = share = tenant_share.TenantShare()
        self.audit, self.redelivery = AuditLog(db), redelivery.Redelivery(db)
        self.webhook_secrets = secrets = endpoint_secrets.Secrets(config.database.secret_keys)
        self.endpoints = endpoints.Endpoints(db, config, secrets, share)
        self.deliveries = delivery.Deliveries(db, config, secrets)
        self.refusals = refusal_events.Refusals(self.audit)
        self.key_uses, self.listing = KeyUses(db), listing.Listing(db, sets)
        self.api_keys = ApiKeys(db, self.key_uses, KEYS.with_setting(config), sets)
        self.tenants, self.rotations = tenants.Tenants(db), rotations.Rotations(db)
        budgets = self.rates.background_call, self.rates.routine_call
        patient, routine = map(door.with_budget, budgets)
        prove = partial(verification.Verification, db, interval.current, prober, sets)
        self.verification = prove(door)
        self.connections = connections.Connections(db, self.verification, config, sets)
        self.approvals, self.imports = Approvals(db, config, sets), Imports(db, config, sets)
        self.proof_queue = proof_queue.ProofQueue(db, interval, prove(patient), prove(routine))
        self.diagnoses = diagnosis.Diagnoses(db, patient, prober, config, sets)
        self.onboarding = kit.Onboarding(db, self.publication, config, sets)
        self.links = page_links.Links(
            db, self.onboarding, self.connections, self.verification, config, self.rates, share
        )
        self.registrations = _registrations(db, config, sets)
        self.authorization = memory = authorization.Authorization(
            db, self.key_uses, self.verification, self.rates, config
        )
        self.issuer = issue.CredentialIssuer(
            db, door, memory, sessions, self.rates, self.audit, config.aws.max_session_seconds
        )
        self.session_origins = session_origins.SessionOrigins(db, self.audit, names, own_roles)
        self.health = _health(self, door, prober)


def _health(services: Services, door: sts.Sts, prober: canary.Canary) -> Health:
    """Return the health checks. `doctor` runs all of them, and readiness only the cheap ones."""
    config, db, queue = services.config, services.db, services.proof_queue
    templates = partial(
        check_templates, services.publication.published, services.onboarding.versions.refusals
    )
    checks = [
        *own_checks(db, door),
        HealthCheck("due", partial(check_due, db, queue.oldest_due), "migrations"),
        HealthCheck("proofs", queue.finding, "migrations"),
        HealthCheck("templates", templates, "bucket migrations", seconds=60.0),
        HealthCheck("webhooks", partial(retention.finding, db), "migrations"),
    ]
    if config.proofs.canary_role_arn:
        checks.append(HealthCheck("prober", partial(prober.finding, door), "aws migrations"))
    if services.registrations:
        registrations = partial(check_registrations, db)
        checks.append(HealthCheck("registrations", registrations, "migrations workers"))
    secrets = partial(endpoint_secrets.check_secrets, db, services.webhook_secrets)
    only_doctors = [*vendor_checks(config, db), HealthCheck("secrets", secrets, "migrations")]
    return Health(only_doctors, checks)


def _shared(config: Config) -> tuple[session_cache.SessionCache, Rates]:
    """Return the session cache and the rate limits, with a shared cache if one is configured.

    The shared cache's libraries are imported lazily: they take 10 % of a process's start-up time.
    """
    shared = None
    if url := config.database.cache_url:
        from app.cache.shared_cache import SharedCache  # noqa: PLC0415

        shared = SharedCache(url)
    sessions = session_cache.SessionCache(config.database.secret_keys, shared)
    return sessions, Rates(config, shared)


def _registrations(
    db: Database, config: Config, sets: PermissionSets
) -> registrations.Registrations | None:
    """Return the handler of registrations; None when no topic is configured."""
    aws, url = config.aws, config.aws.registration_queue_url
    if not aws.registration_topic_arns or url is None:
        return None
    queue = stack_messages.RegistrationQueue(aws.registration_queue_region, url)
    # Created lazily, for each region: few processes send answers to stacks, and creating one client
    # would take 20 % of a process's start-up time.
    answers = cache(partial(stack_messages.stack_answers, partition=aws.broker.partition))
    return registrations.Registrations(db, config, sets, queue, answers)
