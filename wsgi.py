"""What gunicorn and `flask --app wsgi` load: the application with the settings of the environment."""

from app.cli.commands import without_settings
from app.config import Config, ConfigError
from app.factory import create_app

try:
    app = create_app(Config.from_environment())
except ConfigError as error:
    app = without_settings(f"Deputy can't start with these settings:\n{error}")
