"""The application with the environment's settings, for gunicorn and `flask --app wsgi`."""

import gc

gc.disable()  # loaded objects stay, and scanning them takes 25 % of the start-up time

from app.config import Config, ConfigError
from app.factory import create_app, without_settings

try:
    app = create_app(Config.from_environment())
except ConfigError as error:
    app = without_settings(
        f"Deputy can't start with these settings:\n{error}\ndocs/settings.md describes them. Beside"
        " `make run`, this sets them: . .data/env"
    )

gc.freeze()
gc.enable()
