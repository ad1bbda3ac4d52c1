"""The registry of the actions: when an event of each is written, and its details."""

from app.audit import details
from app.audit.events import ACTIONS, Action
from app.store.models import ISSUED

TENANT_CREATED = Action("tenant.created", "A tenant was made.", details.TenantDescription)
TENANT_CHANGED = Action(
    "tenant.changed",
    "A tenant's name, reference or declared accounts were changed.",
    details.TenantDescriptionChange,
)
TENANT_SUSPENDED = Action("tenant.suspended", "A tenant was suspended.", details.TenantStatusChange)
TENANT_RESUMED = Action("tenant.resumed", "A tenant was resumed.", details.TenantStatusChange)
TENANT_DELETED = Action(
    "tenant.deleted",
    "A tenant was deleted, with its connections and the keys that are bound to it.",
    details.TenantDeletion,
)
TENANT_REGISTRATIONS_VOIDED = Action(
    "tenant.registrations_voided",
    "The operator voided a tenant's registration tokens.",
    details.VoidedRegistrations,
)
ROTATION_STARTED = Action(
    "rotation.started", "The replacement of a tenant's External ID began.", details.RotationStart
)
ROTATION_MADE_EMERGENCY = Action(
    "rotation.made_emergency",
    "An open rotation became an emergency: nothing is issued with the old External ID.",
    details.RotationStart,
)
ROTATION_READY = Action(
    "rotation.ready",
    "All verified connections of a tenant have switched to the next External ID.",
    details.RotatedIds,
)
ROTATION_COMPLETED = Action(
    "rotation.completed",
    "The next External ID became current, and the old one is retiring.",
    details.RotatedIds,
)
ROTATION_ABANDONED = Action(
    "rotation.abandoned",
    "A rotation was abandoned, and the next External ID retired.",
    details.RotatedIds,
)
EXTERNAL_ID_RETIRED = Action(
    "external_id.retired",
    "An External ID that was replaced was retired: it is never used again.",
    details.ExternalIdRetirement,
)
LINK_CREATED = Action(
    "onboarding_link.created", "An onboarding link was made.", details.LinkCreation
)
LINK_REVOKED = Action(
    "onboarding_link.revoked", "An onboarding link was revoked.", details.LinkReference
)
CONNECTION_CREATED = Action(
    "connection.created",
    "A connection was added over the API or on an onboarding page.",
    details.RoleReference,
)
CONNECTION_IMPORTED = Action(
    "connection.imported",
    "The operator imported a connection from another system of the vendor.",
    details.ImportedConnection,
)
CONNECTION_DELETED = Action(
    "connection.deleted",
    "A connection was deleted, or the search for its role was ended.",
    details.ConnectionDeletion,
)
CONNECTION_SUSPENDED = Action(
    "connection.suspended", "A connection was suspended.", details.ConnectionSuspension
)
CONNECTION_RESUMED = Action(
    "connection.resumed", "A connection was resumed.", details.ConnectionSuspension
)
CONNECTION_APPROVED = Action(
    "connection.approved",
    "The vendor approved a connection that awaited its approval.",
    details.SetApproval,
)
CONNECTION_SET_ASKED = Action(
    "connection.permission_set_asked",
    "A connection's role is to have another permission set.",
    details.SetRequest,
)
CONNECTION_SET_CHANGED = Action(
    "connection.permission_set_changed",
    "A connection moved to the permission set asked for.",
    details.SetMove,
)
CONNECTION_VERIFIED = Action(
    "connection.verified",
    "A proof passed, and the connection issues credentials.",
    details.ProofResult,
)
CONNECTION_AWAITS_APPROVAL = Action(
    "connection.awaits_approval",
    "A proof passed; the vendor must approve the connection.",
    details.ProofResult,
)
CONNECTION_PROOF_FAILED = Action(
    "connection.proof_failed",
    "A proof failed: the role refuses the tenant's External ID, or accepts callers without it.",
    details.ProofResult,
    "refused",
)
CONNECTION_PROOF_INCONCLUSIVE = Action(
    "connection.proof_inconclusive",
    "A proof was inconclusive: AWS gave no clear answer, and the connection stays as it was.",
    details.ProofResult,
    "failed",
)
CONNECTION_ROLE_RECREATED = Action(
    "connection.role_recreated",
    "A session showed that the role was deleted and remade.",
    details.StatusChange,
    "refused",
)
CONNECTION_ROLE_UNREADABLE = Action(
    "connection.role_unreadable",
    "A role that could read itself may not any more.",
    details.NoDetails,
)
CONNECTION_REGISTERED = Action(
    "connection.registered",
    "A stack registered a role that the tenant had no connection to.",
    details.StackMessage,
)
CONNECTION_REGISTERED_AGAIN = Action(
    "connection.registered_again",
    "A stack registered a connection's role; it is due.",
    details.StackMessage,
)
CONNECTION_STACK_DELETED = Action(
    "connection.stack_deleted",
    "A connection's stack is being deleted; a proof is due.",
    details.StackMessage,
)
CONNECTION_REGISTRATION_IGNORED = Action(
    "connection.registration_ignored",
    "A stack registered a role whose connection is suspended or deleted.",
    details.StackMessage,
    "refused",
)
CONNECTION_REFUSAL_REPORTED = Action(
    "connection.refusal_reported",
    "A worker reported a refusal by AWS; a proof is due.",
    details.RefusalReport,
    is_sent=False,
)
CONNECTION_SWITCHED = Action(
    "connection.external_id_switched",
    "A proof paired a connection with another External ID.",
    details.ExternalIdSwitch,
)
CONNECTION_DIAGNOSED = Action(
    "connection.diagnosed",
    "Somebody asked why a connection does not work, and Deputy looked.",
    details.DiagnosisOutcome,
    is_sent=False,
)
PROBER_SIGHTED = Action(
    "prober.sighted",
    "The canary lets the broker in both ways, so refusals of roles count.",
    details.CanarySight,
)
PROBER_BLINDED = Action(
    "prober.blinded",
    "A policy on the vendor's side refuses probes, so proofs are inconclusive.",
    details.CanarySight,
    "failed",
)
PROBER_CANARY_LOST = Action(
    "prober.canary_lost",
    "The canary refuses the broker: it is deleted, changed or unreachable.",
    details.CanarySight,
    "failed",
)
DATABASE_RESTORED = Action(
    "database.restored",
    "The operator restored a backup; events between `reaches` and this one are lost.",
    details.DatabaseRestore,
    is_sent=False,
)
CREDENTIALS_ISSUED = Action(ISSUED, "Credentials were issued.", details.Issuance, is_sent=False)
KEY_CREATED = Action("api_key.created", "An API key was made.", details.KeyCreation)
KEY_REPLACED = Action(
    "api_key.replaced", "An API key was given a successor.", details.KeyReplacement
)
KEY_REVOKED = Action(
    "api_key.revoked",
    "An API key was revoked, with the keys and links that it made.",
    details.KeyRevocation,
)
PERMISSION_SET_PUBLISHED = Action(
    "permission_set.published",
    "A version of a permission set was recorded, once the bucket served it.",
    details.SetPublication,
)
REQUEST_REFUSED = Action(
    "request.refused",
    "Further requests of one key were refused within the same second.",
    details.RefusalCount,
    "refused",
    is_sent=False,
)
ENDPOINT_CREATED = Action(
    "webhook_endpoint.created",
    "A webhook endpoint was made.",
    details.EndpointDescription,
    is_sent=False,
)
ENDPOINT_CHANGED = Action(
    "webhook_endpoint.changed",
    "A webhook endpoint's URL, types, description or status were changed.",
    details.EndpointChange,
    is_sent=False,
)
ENDPOINT_SECRET_ROTATED = Action(
    "webhook_endpoint.secret_rotated",
    "A webhook endpoint was given a new secret.",
    details.EndpointReference,
    is_sent=False,
)
ENDPOINT_DISABLED = Action(
    "webhook_endpoint.disabled",
    "Deputy disabled a webhook endpoint, because it answered 410 or failed for five days.",
    details.EndpointDisabling,
    "failed",
    is_sent=False,
)
ENDPOINT_RECOVERED = Action(
    "webhook_endpoint.recovered",
    "A webhook endpoint is sent the events of a time that it did not get.",
    details.EndpointRecovery,
    is_sent=False,
)
ENDPOINT_DELETED = Action(
    "webhook_endpoint.deleted",
    "A webhook endpoint was deleted.",
    details.EndpointReference,
    is_sent=False,
)
# The keys are the nouns of the blueprints (app/api/kit/blueprint.py)
REFUSALS = {
    noun: Action(
        f"{noun}.refused",
        f"A request {about} was refused.",
        details.Refusal,
        "refused",
        "failed",
        is_sent=False,
    )
    for noun, about in {
        "tenant": "about a tenant",
        "rotation": "about a rotation",
        "onboarding": "for a kit",
        "permission_set": "about permission sets",
        "onboarding_link": "about onboarding links",
        "connection": "about a connection",
        "credentials": "for credentials",
        "api_key": "about API keys",
        "audit_event": "for audit events",
        "webhook_endpoint": "about webhook endpoints",
    }.items()
}
# The actions whose events webhooks send, by name
WEBHOOK_TYPES = {name: action for name, action in ACTIONS.items() if action.is_sent}
