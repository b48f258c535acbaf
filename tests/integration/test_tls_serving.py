"""HTTPS on both sides: the gateway serves it, and it speaks it to providers, always verified."""

import datetime
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from fakes.client import BrokenAnswerError, Client, text_of
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.upstream import Gate, Upstream, mistral_reply, openai_reply, openai_stream


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PEM files that an operator has: certificate, key, and the authority's certificate."""
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    paths = {name: folder / f"{name}.pem" for name in ("cert", "key", "ca")}
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    authority.cert_pem.write_to_path(paths["ca"])
    return {name: str(path) for name, path in paths.items()}


def provider_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def trusted_provider(authority: trustme.CA) -> Iterator[Upstream]:
    with Upstream(provider_tls(authority.issue_cert("127.0.0.1"))) as upstream:
        yield upstream


async def test_it_serves_https(start_gateway: StartGateway, authority: trustme.CA, files: dict[str, str]) -> None:
    gateway = start_gateway(TLS_CERT_FILE=files["cert"], TLS_KEY_FILE=files["key"])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    gateway.tls = context
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_reply("in TLS"), openai_stream(["a", gate, "b"]))
    assert (await tenant.chat()).text == "in TLS"
    async with tenant.stream() as stream:
        assert await stream.next_text() == "a"
        gate.open()
        assert text_of(await stream.chunks()) == "b"


async def test_what_is_no_modern_tls_is_refused(
    start_gateway: StartGateway, authority: trustme.CA, files: dict[str, str]
) -> None:
    gateway = start_gateway(TLS_CERT_FILE=files["cert"], TLS_KEY_FILE=files["key"])
    with pytest.raises(BrokenAnswerError):
        await Client(gateway.port).get("/livez")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(old)
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    address = ("127.0.0.1", gateway.port)
    with socket.create_connection(address, 10) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


async def test_it_speaks_tls_to_a_provider_it_can_verify(
    start_gateway: StartGateway, trusted_provider: Upstream, files: dict[str, str]
) -> None:
    gateway: Gateway = start_gateway(OPENAI_BASE_URL=trusted_provider.url, SSL_CERT_FILE=files["ca"])
    tenant = await new_tenant(gateway)
    trusted_provider.account(tenant.openai.secret).answers(openai_reply("verified"), openai_stream(["a", "b"]))
    assert (await tenant.chat()).text == "verified"
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "ab"
    assert trusted_provider.connections.value == 1, "a connection is kept"


@pytest.mark.parametrize("fault", ["unknown authority", "other name", "expired"])
async def test_a_provider_that_cannot_be_verified_gets_nothing(
    start_gateway: StartGateway, authority: trustme.CA, files: dict[str, str], fault: str
) -> None:
    certificate = {
        "unknown authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
        "other name": lambda: authority.issue_cert("other.test"),
        "expired": lambda: authority.issue_cert(
            "127.0.0.1",
            not_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            not_after=datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC),
        ),
    }[fault]()
    with Upstream(provider_tls(certificate)) as impostor:
        gateway = start_gateway(OPENAI_BASE_URL=impostor.url, SSL_CERT_FILE=files["ca"])
        tenant = await new_tenant(gateway)
        taken = impostor.account(tenant.openai.secret).answers(openai_reply("stolen"))
        tenant.mistral.answers(mistral_reply("from Mistral"))
        assert (await tenant.chat(tenant.pair)).text == "from Mistral"
        refused = await tenant.chat(tenant.model)
        assert refused.refusal == (502, "upstream_connection_error")
        assert taken.requests == []
        gateway.stop()
