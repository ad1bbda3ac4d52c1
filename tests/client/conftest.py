"""Deputy over HTTP, in this process and on SQLite: one engine is enough for those who only see its API."""

import datetime as dt
import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask

from app.access import Scope
from app.factory import create_app
from sandbox.server import Sandbox
from sandbox.vendor import VendorStack
from tests.cast import Api, World
from tests.client.people import CLIENT, Deputy, Place, served
from tests.conftest import OPERATOR, empty_database, make_config, migrate

sys.path.insert(0, str(CLIENT))


@pytest.fixture(scope="session")
def app(aws: Sandbox, vendor: VendorStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with empty_database("sqlite", tmp_path_factory.mktemp("client-db")) as url:
        migrate(url)
        application = create_app(make_config(url))
        application.testing = False
        yield application
        application.extensions["deputy"].db.engine.dispose()


@pytest.fixture(scope="session")
def admin(app: Flask) -> Api:
    _, text = app.extensions["deputy"].access.issue_key(
        OPERATOR, name="tests' admin", scopes=frozenset(Scope), tenant_id=None, expires_at=None
    )
    return Api(app, text)


@pytest.fixture(scope="session")
def world(aws: Sandbox, admin: Api) -> World:
    return World(aws, admin)


@pytest.fixture
def place(world: World) -> Place:
    """Each test its own: Deputy gives a session to whoever asks the same again, and some tests live in the future."""
    return Place(world)


@pytest.fixture(scope="session")
def _door(app: Flask) -> Iterator[Deputy]:
    door = Deputy(app)
    with served(door) as port:
        door.url = f"http://127.0.0.1:{port}"
        yield door


@pytest.fixture
def deputy(_door: Deputy, monkeypatch: pytest.MonkeyPatch) -> Deputy:
    """The service; DEPUTY_URL names it, and nothing else of the person's own Deputy is left."""
    for name in ("DEPUTY_API_KEY", "DEPUTY_API_KEY_FILE", "DEPUTY_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEPUTY_URL", _door.url)
    _door.requests.clear()
    _door.instead = lambda: None
    return _door


@pytest.fixture
def pauses(deputy: Deputy, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept, which it does not."""
    slept: list[float] = []
    monkeypatch.setattr("deputy_client.service.sleep", slept.append)
    return slept


@dataclass
class Secure:
    url: str
    ca: Path


@pytest.fixture
def secure(_door: Deputy, tmp_path: Path) -> Iterator[Secure]:
    """The service over TLS, under a certificate that only `ca` vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "deputy")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with served(_door, ssl_context=(str(tmp_path / "ca.pem"), str(tmp_path / "key.pem"))) as port:
        yield Secure(f"https://localhost:{port}", tmp_path / "ca.pem")
