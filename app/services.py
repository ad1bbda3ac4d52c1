"""The composition root: makes every object that the web, the CLI and the tests use. It knows no Flask."""

from functools import cache, partial

from app import log
from app.access.api_keys import ApiKeys
from app.audit.log import AuditLog
from app.aws.stack_answers import stack_answers
from app.aws.stack_messages import RegistrationQueue
from app.aws.sts import Sts
from app.aws.templates import TemplateBucket
from app.config import Config
from app.connections.canary import Canary
from app.connections.connections import Connections
from app.connections.diagnosis import Diagnoses
from app.connections.listing import Listing
from app.connections.pace import Pace
from app.connections.proof_queue import ProofQueue
from app.connections.verification import Verification
from app.health.own_side import own_side_checks
from app.health.readiness import Health, checks
from app.issuing.authorization import Authorization
from app.issuing.issue import CredentialIssuer
from app.issuing.session_cache import SessionCache
from app.issuing.shelf_life import ShelfLife
from app.limits.quotas import Quotas
from app.limits.rates import Rates
from app.limits.refusals import Refusals
from app.limits.tenant_share import TenantShare
from app.onboarding.kit import Onboarding
from app.onboarding.page_links import Links
from app.onboarding.registrations import Registrations
from app.permissions import permission_sets
from app.permissions.permission_sets import PermissionSets
from app.store.database import Database
from app.tenants.rotation import Rotations
from app.tenants.tenants import Tenants


def begin(config: Config) -> None:
    """Set up the log, and log what looks like a mistake in the settings. A process calls it first."""
    log.configure(config.log_level)
    for doubt in config.doubts:
        log.get(__name__).warning("settings.doubtful", detail=doubt)


class Services:
    """Every object of a process, which is made once. Opens no connection to anything. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.db = db = Database(config.database_url)
        sets = permission_sets.configured(config)
        sts = Sts(config.region, config.broker, config.canary_role_arn, config.stranger_role_arn)
        pace, canary = Pace(db, config), Canary(db, config)
        sessions, self.rates = _shared(config)
        self.quotas = Quotas(db, config)
        self.tenant_share = TenantShare()
        self.audit = AuditLog(db)
        self.refusals = Refusals(db)
        self.api_keys = ApiKeys(db, most=config.tenant_keys, sets=sets)
        self.tenants = Tenants(db)
        self.rotations = Rotations(db)
        self.listing = Listing(db, sets)
        self.verification = Verification(db, sts, pace, canary, sets)
        self.connections = Connections(db, self.verification, config, sets)
        self.proof_queue = ProofQueue(db, sts, self.rates, pace, canary, sets=sets)
        self.diagnoses = Diagnoses(db, sts.with_budget(self.rates.background_call), canary, config, sets)
        self.onboarding = Onboarding(db, TemplateBucket(config), config, sets)
        self.links = Links(db, self.onboarding, self.connections, self.verification, config)
        self.registrations = _registrations(db, config, sets)
        shelf_life = ShelfLife(db, self.verification, self.rates, config.proof_max_age)
        self.authorization = Authorization(db, shelf_life)
        seconds = config.max_session_seconds
        self.issuer = CredentialIssuer(db, sts, self.authorization, sessions, self.rates, self.audit, seconds)
        self.health = _health(db, sts, self.onboarding, self.proof_queue, canary=canary, config=config)


def _shared(config: Config) -> tuple[SessionCache, Rates]:
    """With a shared cache, if there is one; without, its libraries are not loaded: a tenth of a process's start."""
    if not config.cache_url:
        return SessionCache(config.secret_keys, None), Rates(config, None)
    from app.cache.shared_cache import SharedCache  # noqa: PLC0415
    from app.limits.shared import SharedLimits  # noqa: PLC0415

    shared = SharedCache(config.cache_url)
    return SessionCache(config.secret_keys, shared), Rates(config, SharedLimits(config.cache_url, shared))


def _health(
    db: Database, sts: Sts, onboarding: Onboarding, proof_queue: ProofQueue, *, canary: Canary, config: Config
) -> Health:
    listens = config.registration_queue_url is not None
    return Health(
        [
            *own_side_checks(config, db),
            *checks(
                db,
                sts,
                templates=onboarding.published,
                oldest_due=proof_queue.oldest_due,
                proofs=proof_queue.state,
                listens=listens,
                prober=partial(canary.finding, sts) if config.canary_role_arn else None,
            ),
        ]
    )


def _registrations(db: Database, config: Config, sets: PermissionSets) -> Registrations | None:
    """None when no topic is configured."""
    region, url = config.registration_region, config.registration_queue_url
    if region is None or url is None:
        return None
    queue = RegistrationQueue(region, url)
    # Few processes answer stacks, and what that takes would be a fifth of the start of each.
    answers = cache(partial(stack_answers, region, config.broker.partition))
    return Registrations(db, config, sets, queue, answers)
