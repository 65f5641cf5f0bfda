"""Entry of the API process: `gunicorn -c python:api.gunicorn_conf api.wsgi:app`."""

from api.app import create_app
from shared.log import configure_logging
from shared.settings import Settings

settings = Settings.from_env()
configure_logging(settings, process="api")
app = create_app(settings)
