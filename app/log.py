"""Log lines: one JSON object each, on standard error, with the request id bound to it.

Secrets can't be printed: the objects that carry them hide them from `repr`, and `_redact` is the
second net. What is logged about a request is its route, never its path or its query, since those of
onboarding pages hold their tokens.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict

# An API key, an onboarding link's token in a URL, the start of a session token, and a secret access
# key named as such.
_SECRETS = re.compile(
    r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
    r"|(?<=/onboard/)[A-Za-z0-9_-]{43}"
    r"|(?:FwoG|IQoJ|FQoG)[A-Za-z0-9+/=]{40,}"
    r"|(?<=key)[\"'=:\s>]+[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])",
    re.IGNORECASE,
)
# Names without their case and their separators, so that SessionToken and session_token are one.
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
    """The value as JSON will hold it, without what looks like a secret or is named like one."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            _scrub(str(name)): "[redacted]" if _is_secret(name) else _scrub(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrub(item) for item in value]
    return _SECRETS.sub("[redacted]", value if isinstance(value, str) else repr(value))


def _is_secret(name: Any) -> bool:
    return re.sub(r"[^a-z]", "", str(name).lower()) in _SECRET_NAMES


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    scrubbed: EventDict = _scrub(event)
    return scrubbed


def _scrub_line(record: logging.LogRecord) -> bool:
    """For a logger that writes by itself: gunicorn's, which names the path of a request that it
    couldn't finish.
    """
    record.msg, record.args = _SECRETS.sub("[redacted]", record.getMessage()), ()
    return True


def configure(level: str) -> None:
    """Send the whole process's log lines, libraries' included, through one JSON renderer."""
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
        cache_logger_on_first_use=False,
    )
    # Redacted after the traceback has become text, so that it is scrubbed too.
    to_text: list[Any] = [
        formatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact,
    ]
    handler = logging.StreamHandler(sys.stderr)
    json_lines = [*to_text, structlog.processors.JSONRenderer()]
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=json_lines))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in (
        *_NOISY,
        _POOL,
    ):  # at DEBUG, botocore prints whole requests, signatures and answers
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("gunicorn.error").addFilter(_scrub_line)


# Called with an event's name and key=value facts. Each line names the module that made it, as
# structlog finds that out.
logger: Any = structlog.stdlib.get_logger()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines about what went well, which at a terminal would stand among those that a
    command prints.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING if level == logging.INFO else level)
    try:
        yield
    finally:
        root.setLevel(level)
