"""The tables, whose constraints and triggers enforce the invariants of docs/architecture.md.

- A composite foreign key refuses to pair a role with another tenant's External ID (invariant 3).
- No External ID is ever used twice, and no tenant has two current External IDs (invariant 4).
  Triggers refuse to change or delete an External ID, and to use a retired one again.
- Triggers refuse to change an audit event, and to delete one before its retention ends.
- A tenant and a role ARN identify one row: a live connection, or the tombstone of a deleted one
  (invariant 12).
- A revocation of a key, a tenant or a connection increases the revocation counter in the same
  transaction (app/store/revocation.py). So every process notices that its memory is out of date
  (invariant 8).

The rows of deleted tenants and connections are kept, so their ids and External IDs are never given
to another tenant.
"""

from app.store.models.api_key import ApiKey
from app.store.models.approval import Approval, ApprovalDecision
from app.store.models.audit_event import ISSUED, NOT_ISSUED, NOT_ISSUED_TO, AuditEvent
from app.store.models.base import TenantOwned
from app.store.models.connection import (
    IN_ROUTINE,
    LIVE,
    URGENT,
    Connection,
    deletion,
    live_of,
    live_ranges_of,
)
from app.store.models.connection_status import ConnectionStatus, StackState
from app.store.models.deployment import (
    BackgroundWorker,
    Configuration,
    PermissionSetVersion,
    QuotaUse,
)
from app.store.models.external_id import (
    ExternalIdCheck,
    ExternalIdOrigin,
    ExternalIdRow,
    ExternalIdState,
    Rotation,
    RotationState,
)
from app.store.models.idempotency import IdempotentRequest
from app.store.models.onboarding import LinkStatus, OnboardingLink, Registration
from app.store.models.proof import Proof, Trigger, Verdict
from app.store.models.tenant import Tenant, TenantAccount, TenantStatus, folded
from app.store.models.webhook import (
    DeliveryStatus,
    DisabledBecause,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
