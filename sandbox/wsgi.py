"""Process entry of the sandbox; run it in one process: `gunicorn -c python:sandbox.gunicorn_conf sandbox.wsgi:app`."""

from sandbox.app import SandboxConfig, create_app
from sandbox.reader import PaddleReader
from shared.settings import Settings

# Two cores are what the smallest supported machine has; more make one card hardly faster.
RECOGNITION_THREADS = 2

_reader = PaddleReader(threads=RECOGNITION_THREADS)
_reader.warm_up()
app = create_app(SandboxConfig.from_settings(Settings.from_env()), _reader)
