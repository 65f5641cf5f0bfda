"""`kazheng sandbox`: the sandbox alone."""

import os
import sys

import click

from kazheng.addresses import local_url
from shared.settings import Settings


@click.command("sandbox")
def sandbox() -> None:
    """Run only the sandbox: a local server that speaks Baidu's OCR protocol and really reads the picture.

    For your own tests of a Baidu client. Address and keys are the KAZHENG_SANDBOX_… settings.
    """
    settings = Settings.from_env()
    url = local_url(settings.sandbox_host, settings.sandbox_port)
    click.echo(f"The sandbox will listen at {url}; its API key is {settings.sandbox_api_key}. Ctrl-C ends it.")
    sys.stdout.flush()
    # This process becomes gunicorn, so that signals and the exit code are its own.
    command = ["-m", "gunicorn", "-c", "python:sandbox.gunicorn_conf", "sandbox.wsgi:app"]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - no shell wanted
