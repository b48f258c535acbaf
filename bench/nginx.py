"""nginx, twice: as the mock provider, and as the plain reverse proxy that Tollway is compared with."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme

from bench import exchange, machine, processes
from bench.programs import Place, Program, Upstream
from bench.report import BARE, NGINX

# Everything that could slow it down or stop it early is off: logs, limits on the life of a connection.
_FRAME = """
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log {folder}/error.log error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
{content}
}}
"""

_MOCK = """
  server {{
    listen 127.0.0.1:{port}{ssl} backlog=4096;
    {certificate}
    location / {{
      default_type application/json;
      {headers}
      return 200 '{answer}';
    }}
  }}
"""

_PROXY = """
  upstream provider {{
    server 127.0.0.1:{upstream_port};
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass {scheme}://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_read_timeout 3600s;
      {buffering}
      {tls}
    }}
  }}
"""


@contextmanager
def mock_upstream(place: Place, *, tls: bool = False) -> Iterator[Upstream]:
    """A provider that answers every request at once, on the core of the load."""
    with _mock(place, place.other_core, tls=tls) as upstream:
        yield upstream


@contextmanager
def bare_upstream(place: Place) -> Iterator[Program]:
    """The same provider without anything in front: on the program's core, so that its answers cross cores as well."""
    with _mock(place, place.program_core) as upstream:
        yield Program(BARE, upstream.port, upstream.worker)


@contextmanager
def _mock(place: Place, core: int, *, tls: bool = False) -> Iterator[Upstream]:
    folder, port = place.make("mock"), processes.free_port()
    certificate, authority = "", None
    if tls:
        authority = _make_certificate(folder)
        certificate = (
            f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key; "
            "ssl_protocols TLSv1.2 TLSv1.3;"
        )
    content = _MOCK.format(
        port=port,
        ssl=" ssl" if tls else "",
        certificate=certificate,
        headers=_headers(exchange.ANSWER_HEADERS),
        answer=exchange.ANSWER.replace("\\", "\\\\").replace("'", "\\'"),
    )
    with _nginx(folder, content, port, core) as worker:
        yield Upstream(port, worker, authority)


@contextmanager
def reverse_proxy(place: Place, upstream: Upstream, *, streams: bool = False) -> Iterator[Program]:
    """nginx as plain as it gets: keep-alive to the upstream, and no buffering where streams must flow."""
    folder, port = place.make("nginx"), processes.free_port()
    tls = ""
    if upstream.authority:
        # It checks names only, never addresses; "localhost" is in the certificate as well.
        tls = (
            f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {upstream.authority}; "
            "proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
        )
    content = _PROXY.format(
        port=port,
        upstream_port=upstream.port,
        scheme="https" if upstream.authority else "http",
        buffering="proxy_buffering off;" if streams else "",
        tls=tls,
    )
    with _nginx(folder, content, port, place.program_core) as worker:
        yield Program(NGINX, port, worker)


@contextmanager
def _nginx(folder: Path, content: str, port: int, core: int) -> Iterator[int]:
    """Start nginx on one core; the value is the process id of its worker."""
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker may not enter our private folder
    configuration = folder / "nginx.conf"
    configuration.write_text(_FRAME.format(folder=folder, user=user, content=content))
    command = [machine.tool("nginx"), "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    with processes.running("nginx", command, folder / "output.log", cores={core}) as child:
        processes.wait_for_port(child, port)
        yield processes.only_below(child.pid, "nginx: worker")


def _headers(headers: Mapping[str, str]) -> str:
    return "\n      ".join(f"add_header {name} '{value}';" for name, value in headers.items())


def _make_certificate(folder: Path) -> Path:
    """Write a certificate for loopback and its key; the value is the file of the authority that signed it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    with (folder / "server.pem").open("wb") as file:
        file.writelines(blob.bytes() for blob in certificate.cert_chain_pems)
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder / "authority.pem"
