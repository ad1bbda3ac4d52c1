"""Log lines: one JSON object each, on standard error, with the request id.

The objects with secrets hide them from `repr`, and `_redact` removes any that remain. A request is
logged with its route, never with its path or its query. Those of onboarding pages contain tokens.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict

# An API key, an onboarding link's token in a URL, the beginning of a session token, and a secret
# access key with its name.
_SECRETS = re.compile(
    r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
    r"|(?<=/onboard/)[A-Za-z0-9_-]{43}"
    r"|(?:FwoG|IQoJ|FQoG)[A-Za-z0-9+/=]{40,}"
    r"|(?<=key)[\"'=:\s>]+[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])",
    re.IGNORECASE,
)
# Names without case and separators, so SessionToken and session_token are the same.
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
_NOISY = ("alembic", "botocore", "boto3", "celery", "kombu", "urllib3", "s3transfer", "werkzeug")
_POOL = "app.store.database._TimedPool"  # SQLAlchemy names its pool's logger by the class


def _scrub(value: Any) -> Any:
    """Return the value for JSON, without what looks like a secret or has a secret's name."""
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
    """Redact secrets in the lines of a logger that writes by itself.

    gunicorn's logger names the path of a request that it could not finish.
    """
    record.msg, record.args = _SECRETS.sub("[redacted]", record.getMessage()), ()
    return True


def configure(level: str) -> None:
    """Send the whole process's log lines, including libraries', through one JSON renderer."""
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
        _redact,  # after the traceback has become text, so that it is redacted too
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


# Call it with an event's name and facts as key=value. structlog adds the name of the calling module
# to each line.
logger: Any = structlog.stdlib.get_logger()


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the lines about successes.

    At a terminal they would mix with the output of a command.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING if level == logging.INFO else level)
    try:
        yield
    finally:
        root.setLevel(level)
