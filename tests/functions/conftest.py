"""A certificate authority, a TLS site, an endpoint, and the environment that the stack would set."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from classify import fetch, logic, objects, sagemaker_runtime
from tests.functions.fakes import HOST, OTHER_PUBLIC, PUBLIC, Endpoint, Internet, Site

_USES = x509.KeyUsage(True, False, False, False, False, True, False, False, False)  # signs data and certificates


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed for all names of the tests; key and certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pretended internet")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = (HOST, "elsewhere.example", "xn--hndchen-n2a.example", "runtime.sagemaker.eu-central-1.amazonaws.com")
    names = [x509.DNSName(host) for host in hosts]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        # From Python 3.13 on, a certificate is held to RFC 5280 to the letter.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(_USES, critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    """A server's context that can prove all names of the tests."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return tls


@pytest.fixture(scope="session")
def client_tls(certificate: Path) -> ssl.SSLContext:
    """A client's context that believes them."""
    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture
def site(server_tls: ssl.SSLContext) -> Site:
    return Site(server_tls)


@pytest.fixture
def internet(site: Site, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """HOST has two public addresses; both lead to `site`. Only name server, network and authority are pretended."""
    with site.up() as port:
        internet = Internet(port, {HOST: [[PUBLIC, OTHER_PUBLIC]], "elsewhere.example": [["198.35.26.96"]]})
        monkeypatch.setattr(fetch, "resolve", internet.resolve)
        monkeypatch.setattr(fetch, "connect", internet.connect)
        monkeypatch.setattr(fetch, "tls_context", lambda: client_tls)
        yield internet


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What the stack and Lambda would set; clients and settings of other tests are forgotten."""
    for name, value in {
        "ENDPOINT_NAME": "kennel-test",
        "ALLOWED_S3_PREFIXES": "pictures-bucket/photos",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    _forget()
    yield monkeypatch
    if logic.runtime.cache_info().currsize:
        logic.runtime().pool.close()
    _forget()


def _forget() -> None:
    for remembered in (objects.s3_client, logic.runtime, logic.Settings.of_environment, sagemaker_runtime.tls_context):
        remembered.cache_clear()


@pytest.fixture
def endpoint(environment: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    fake = Endpoint()
    with fake.up() as url:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield fake


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds of the pauses before further attempts; the pauses themselves are none."""
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        bounds.append(high)
        return low

    monkeypatch.setattr("random.uniform", uniform)
    return bounds
