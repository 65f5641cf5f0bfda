"""Receivers in one process: good ones that note when what arrived, and bad ones of every kind."""

import asyncio
import sys
import time
from contextlib import suppress

from aiohttp import web

_arrived: list[tuple[str, float]] = []


async def _good(request: web.Request) -> web.Response:
    _arrived.append((request.headers["webhook-id"], time.time()))
    await request.read()
    return web.Response(text="ok")


async def _plain(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="ok")


async def _seen(_: web.Request) -> web.Response:
    found = list(_arrived)
    _arrived.clear()
    return web.json_response(found)


async def _hangs(request: web.Request) -> web.Response:
    await asyncio.sleep(600)
    return web.Response()


async def _drips(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "100000"})
    await answer.prepare(request)
    with suppress(ConnectionError):  # the caller has its deadline
        for _ in range(600):
            await answer.write(b"x")
            await asyncio.sleep(1)
    return answer


async def _fails(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=500)


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(9)
    return web.Response(text="ok")


def main(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.add_routes(
        [
            web.post("/good/{number}", _good),
            web.post("/plain", _plain),
            web.get("/seen", _seen),
            web.post("/hangs", _hangs),
            web.post("/drips", _drips),
            web.post("/fails", _fails),
            web.post("/slow", _slow),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, backlog=1024)


if __name__ == "__main__":
    main(int(sys.argv[1]))
