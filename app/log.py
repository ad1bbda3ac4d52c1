"""The log: each line is a JSON object with the request id, on standard error.

Objects with secrets leave them out of `repr`. `_redact` removes secrets that reach a line anyway. A
request is logged with its route, never with its path or query, because an onboarding page's path
contains a token.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict

# The alternatives match: an API key; an onboarding link's token in a URL; an AWS session token, by
# its first characters; a secret access key, after a name that ends in "key".
_SECRETS = re.compile(
    r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
    r"|(?<=/onboard/)[A-Za-z0-9_-]{43}"
    r"|(?:FwoG|IQoJ|FQoG)[A-Za-z0-9+/=]{40,}"
    r"|(?<=key)[\"'=:\s>]+[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])",
    re.IGNORECASE,
)
# In lower case and without separators: "sessiontoken" stands for SessionToken and session_token.
_SECRET_NAMES = {
    "authorization",
    "key",
    "apikey",
    "secret",
    "password",
    "token",
    "sessiontoken",
    "secretaccesskey",
}
_NOISY = ("alembic", "botocore", "boto3", "urllib3", "s3transfer", "werkzeug")
_POOL = "app.store.database._TimedPool"  # SQLAlchemy names a pool's logger after the pool's class
# Only refusals and failures of these blueprints and endpoints are logged. They are requested
# often, or are the API's documentation, or issue credentials, which are in the audit log.
_QUIET_BLUEPRINTS = {"credentials", "health", "swagger_ui"}
_QUIET_ENDPOINTS = {"web.static", "web.look_file", "web.status"}


def _scrub(value: Any) -> Any:
    """Return the value for JSON. Redact texts that look like secrets or have a secret's name."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        scrubbed = {}
        for name, item in value.items():
            is_secret = re.sub(r"[^a-z]", "", str(name).lower()) in _SECRET_NAMES
            scrubbed[_scrub(str(name))] = "[redacted]" if is_secret else _scrub(item)
        return scrubbed
    if isinstance(value, list | tuple | set | frozenset):
        return list(map(_scrub, value))
    return _SECRETS.sub("[redacted]", value if isinstance(value, str) else repr(value))


def _redact(_logger: Any, _method: str, event: EventDict) -> Any:
    return _scrub(event)


def _scrub_line(record: logging.LogRecord) -> bool:
    """Redact secrets in the lines of gunicorn's logger.

    gunicorn logs the path of a request that it could not finish.
    """
    record.msg, record.args = _SECRETS.sub("[redacted]", record.getMessage()), ()
    return True


def configure(level: str) -> None:
    """Send all log lines of this process, including libraries' lines, through one JSON renderer."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    formatter = structlog.stdlib.ProcessorFormatter
    structlog.configure(
        processors=[*shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    json_lines: list[Any] = [
        formatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact,  # after format_exc_info, so that tracebacks are redacted too
        structlog.processors.JSONRenderer(),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=json_lines))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in (*_NOISY, _POOL):  # at DEBUG, botocore logs whole requests, signatures and answers
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("gunicorn.error").addFilter(_scrub_line)


# Call its methods with an event's name, and with facts as keywords. structlog adds the name of the
# calling module.
logger: Any = structlog.stdlib.get_logger()


def leaves_no_line(blueprint: str | None, endpoint: str | None, status: int) -> bool:
    """Return whether a request with this status is not logged. app/factory.py logs the others."""
    return status < 400 and (blueprint in _QUIET_BLUEPRINTS or endpoint in _QUIET_ENDPOINTS)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress log lines of the level INFO inside the `with` block.

    At a terminal they would be mixed with a command's output.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING if level == logging.INFO else level)
    try:
        yield
    finally:
        root.setLevel(level)
