"""A plain request is read as gunicorn reads it, and everything else is left to gunicorn."""

import random

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from app.http.plain_requests import READ_BYTES, PlainReader, PlainRequest, setting_for_gunicorn

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TARGET = f"(?:/deputy)?/v1/tenants/([0-9a-f-]{{36}})/({ID})"
PATH = f"/v1/tenants/{ID}/{ID}"
PEER = ("127.0.0.1", 5)
KEY = "Authorization: Bearer dpk_0123456789abcdef_" + "A" * 43
LINES = [f"POST {PATH} HTTP/1.1", "Host: deputy.example", KEY]
BODY = '{"reason":"x"}'
PLAIN_FIELDS = """\
Content-Length: 0
content-length:0
Content-Length: 1
Content-Length: 00
Content-Length:
Content-Length: 14
Content-Length: +14
Content-Length : 14
Content-Length: 14, 14
Content-Length: 15
Transfer-Encoding: chunked
Transfer-Encoding: identity
Transfer_Encoding: chunked
Connection: keep-alive
Connection: close
connection: Keep-Alive
Connection: keep-alive, upgrade
Expect: 100-continue
Upgrade: h2c
TE: trailers
Trailer: x
Proxy-Connection: close
Content-Type: application/json
Content-Type: text/plain
content-type: application/json; charset=utf-8
X-Forwarded-For: 192.0.2.1, 192.0.2.2
X-Forwarded-Proto: https
X-Forwarded-Ssl: off
X-Forwarded-Protocol: ssl
X_Forwarded_For: 192.0.2.3
Script_Name: /x
Script-Name: /x
Host: other
Authorization: Bearer x
authorization: bearer y
Authorization:Bearer z
Na me: x
Name : x
: x
noname
Accept: */*
User-Agent: Boto3
X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678
Accept-Encoding: identity
Keep-Alive: 5
"""
FIELDS = (
    *PLAIN_FIELDS.splitlines(),
    "AUTHORIZATION: \tBearer z \t",
    " folded: x",
    "X: \x00",
    "X: \x7f",
    "X: \x80",
    "X:\ty\t",
    "X: a\rb",
    "X: a\nb",
    "X:" + " " * 30 + "z",
    "X" * 300 + ": " + "y" * 3000,
    "X-Y: é",
)
BYTES = b"\r\n \t:\x00_-%?#;/.,01Aa{\xff"
reader = PlainReader(TARGET)


def settings(**values):
    """gunicorn's settings as the service has them."""
    config = Config()
    for name, value in (
        {"forwarder_headers": "", "limit_request_field_size": 16_384} | values
    ).items():
        config.set(name, value)
    return config


SETTINGS = settings()


def read_by_gunicorn(data):
    request = Request(SETTINGS, IterUnreader([data]), PEER, 1)
    _, environ = wsgi.create(request, None, PEER, ("127.0.0.1", 80), SETTINGS)
    return {
        "request": PlainRequest(
            environ["REQUEST_METHOD"],
            reader._header.match(data.decode("latin-1")).groups()[1:-1],
            environ["HTTP_AUTHORIZATION"],
            environ.get("CONTENT_TYPE"),
            environ.get("HTTP_X_FORWARDED_FOR"),
            environ["wsgi.input"].read(),
        ),
        "path": environ["PATH_INFO"],
        "rest": environ["QUERY_STRING"] + environ["SCRIPT_NAME"],
        "left": request.unreader.buf.getvalue(),
        "version": request.version,
        "closes": request.should_close(),
        "waits": not {"EXPECT", "TRANSFER-ENCODING"}.isdisjoint(
            name for name, _ in request.headers
        ),
    }


def mutated(data, chance):
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.choice(BYTES)
            case 1:
                changed.insert(place, chance.choice(BYTES))
            case 2:
                del changed[place]
            case _:
                end = place + chance.randrange(1, 30)
                changed[end:end] = changed[place:end]
    return bytes(changed)


def assert_read_as_by_gunicorn(count, seed):
    chance, plain = random.Random(seed), 0  # noqa: S311  no secret
    for _ in range(count):
        lines = list(LINES)
        if chance.random() < 0.3:
            lines[0] = (
                lines[0]
                .replace("POST", chance.choice(["GET", "PUT", "get", "POST "]))
                .replace("/v1", "/deputy/v1")
            )
        if has_body := chance.random() < 0.4:
            lines += [f"Content-Length: {len(BODY)}", "Content-Type: application/json"]
        for _ in range(chance.randrange(4)):
            lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(FIELDS))
        data = "\r\n".join([*lines, "", BODY if has_body else ""]).encode("latin-1", "replace")
        if chance.random() < 0.4:
            data = mutated(data, chance)
        if (request := reader.read(data)) is None:
            continue
        plain += 1
        path = data.split(b" ")[1].decode()
        assert read_by_gunicorn(data) == {
            "request": request,
            "path": path,
            "rest": "",
            "left": b"",
            "version": (1, 1),
            "closes": False,
            "waits": False,
        }, data
    assert plain > count / 6, "the comparison says something"


def test_a_plain_request_is_read_as_gunicorn_reads_it():
    assert_read_as_by_gunicorn(5_000, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_requests_are_read_as_gunicorn_reads_them(seed):
    assert_read_as_by_gunicorn(10_000, seed)


def test_a_request_with_anything_unusual_is_left_to_gunicorn():
    text = "\r\n".join([*LINES, "", ""])
    assert reader.read(text.encode())
    end = "\r\n\r\n"
    for old, new in (
        (KEY, f"{KEY}\r\nExpect: 100-continue"),
        (KEY, f"{KEY}\r\nTransfer-Encoding: chunked"),
        (KEY, f"{KEY}\r\nX_Y: 1"),
        (KEY, f"{KEY}\r\nContent-Length: 1"),
        (KEY, f"{KEY}\r\n{KEY}"),
        (KEY, f"{KEY}\r\nHost: deputy.example"),
        (KEY, f"{KEY}\r\nConnection: close"),
        (KEY, f"{KEY}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off"),
        (end, f"{end}GET / HTTP/1.1{end}"),
        (end, f"{end} "),
        (end, "\r\n"),
        ("\r\n", "\n"),
        ("HTTP/1.1", "HTTP/1.0"),
        (PATH, f"{PATH}?x"),
        (PATH, f"{PATH}/"),
        (PATH, f"http://deputy{PATH}"),
        ("Host: deputy.example\r\n", ""),
        (f"{KEY}\r\n", ""),
        ("POST", "HEAD"),
        ("/v1", "/%761"),
        ("a5d", "A5D"),
    ):
        assert old in text
        assert reader.read(text.replace(old, new).encode()) is None, (old, new)


def test_no_more_fields_are_read_than_gunicorn_allows():
    for count, is_plain in ((98, True), (99, False)):
        data = "\r\n".join([*LINES, *["X: y"] * count, "", ""]).encode()
        assert (reader.read(data) is not None) == is_plain


NOT_ABOUT_REQUESTS = """
access_log_format asgi_disconnect_grace_period asgi_lifespan asgi_loop backlog bind
capture_output cert_reqs chdir check_config child_exit ciphers config control_socket
control_socket_disable control_socket_mode daemon default_proc_name dirty_apps
dirty_graceful_timeout dirty_post_fork dirty_threads dirty_timeout dirty_worker_exit
dirty_worker_init dirty_workers disable_redirect_access_to_syslog do_handshake_on_connect
dogstatsd_tags enable_backlog_metric enable_stdio_inheritance errorlog graceful_timeout group
http2_initial_window_size http2_max_concurrent_streams http2_max_frame_size
http2_max_header_list_size initgroups loglevel nworkers_changed on_dirty_starting on_exit
on_reload on_starting paste pidfile post_fork post_worker_init pre_exec pre_fork preload_app
print_config proc_name proxy_allow_ips pythonpath raw_env raw_paste_global_conf reload
reload_engine reload_extra_files reuse_port sendfile spew ssl_version statsd_prefix
suppress_ragged_eofs syslog_addr syslog_facility syslog_prefix threads timeout tmp_upload_dir
umask user uwsgi_allow_ips websocket_max_message_size when_ready worker_abort worker_class
worker_connections worker_exit worker_int worker_tmp_dir workers wsgi_app
"""
HONOURED_HERE = {"max_requests", "max_requests_jitter"}
# They only let gunicorn accept, or drop, what a plain request does not have.
ABOUT_UNUSUAL_REQUESTS = {
    "casefold_http_method",
    "forwarder_headers",
    "header_map",
    "http_parser",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "strip_header_spaces",
}
OTHER_VALUES = {
    "accesslog": "/x",
    "logconfig": "/x",
    "logconfig_json": "/x",
    "ca_certs": "/x",
    "certfile": "/x",
    "keyfile": "/x",
    "root_path": "/x",
    "logconfig_dict": {"version": 1},
    "logger_class": "gunicorn.instrument.statsd.Statsd",
    "syslog": True,
    "statsd_host": "127.0.0.1:8125",
    "ssl_context": lambda config, default: default(),
    "protocol": "uwsgi",
    "http2_cleartext": "both",
    "http_protocols": "h2,h1",
    "forwarded_allow_ips": "*",
    "proxy_protocol": "v1",
    "secure_scheme_headers": {"X-SCHEME": "https"},
    "pre_request": lambda worker, req: None,
    "post_request": lambda worker, req, environ, resp: None,
    "keepalive": 0,
    "limit_request_line": 1000,
    "limit_request_fields": 99,
    "limit_request_field_size": READ_BYTES - 1,
}


def test_a_setting_that_only_gunicorn_honours_leaves_every_request_to_it(monkeypatch):
    assert setting_for_gunicorn(settings()) is None
    for name, value in OTHER_VALUES.items():
        assert setting_for_gunicorn(settings(**{name: value})) == name
    for name, value in (("SCRIPT_NAME", "/x"), ("FORWARDED_ALLOW_IPS", "*")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert setting_for_gunicorn(settings()) == name


def test_every_setting_of_gunicorns_was_looked_at():
    """A new version may bring another one that changes how requests are read."""
    examined = {*NOT_ABOUT_REQUESTS.split(), *HONOURED_HERE, *ABOUT_UNUSUAL_REQUESTS, *OTHER_VALUES}
    assert set(Config().settings) == examined
