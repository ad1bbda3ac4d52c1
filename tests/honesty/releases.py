"""Copies of this checkout."""

import shutil

from dev.stack import ROOT

_PARTS = ("app", "cloudformation", "migrations", "alembic.ini", "gunicorn.conf.py", "wsgi.py")


def same(folder):
    """This checkout, in `folder`."""
    folder.mkdir()
    for part in _PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)  # type: ignore[operator]
    return folder
