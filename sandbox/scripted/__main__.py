"""`python -m sandbox.scripted --port 8081 --script script.json`."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from sandbox.scripted.script import Script
from sandbox.scripted.server import ScriptedServer


async def _serve(script: Script, host: str, port: int) -> None:
    runner = web.AppRunner(ScriptedServer(script).application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    await site.start()
    address = runner.addresses[0]
    sys.stdout.write(f"listening on http://{address[0]}:{address[1]}\n")
    sys.stdout.flush()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser("sandbox.scripted", description="A server that speaks Baidu's protocol by script.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8081, help="port to listen on; 0: a free one")
    parser.add_argument("--script", type=Path, help="JSON file: accounts, latency, network, faults")
    given = parser.parse_args()
    try:
        script = Script.model_validate_json(given.script.read_bytes()) if given.script else Script()
    except (OSError, ValidationError) as error:
        parser.error(f"--script: {error}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(script, given.host, given.port))


if __name__ == "__main__":
    main()
