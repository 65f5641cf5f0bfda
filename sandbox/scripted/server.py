"""The HTTP side, on one event loop: it has to hold 500 calls a second on one core, 300 of them under way.

The order in which a call is judged: the network's delay, path, token, permission, faults of the door, quota, window;
then it is taken, and what goes wrong with it happens to a call that counts.
"""

import asyncio
import ipaddress
import json
import math
import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from sandbox.faults import Fault
from sandbox.scripted.answers import ANSWERS, log_ids, picture_digest
from sandbox.scripted.script import Latency, Script, ScriptedAccount, ScriptedFault
from sandbox.scripted.state import State

MAX_BODY_BYTES = 10_000_000
_P95_DEVIATIONS = 1.6448536
_DRIP_SECONDS = 0.1
_OCR = "/rest/2.0/ocr/v1/"
_MESSAGES = {fault.code: fault.message for fault in Fault} | {19: "Open api total request limit reached"}
_FAULTS = TypeAdapter(tuple[ScriptedFault, ...])


class ScriptedServer:
    """Answers Baidu's protocol from a script."""

    def __init__(self, script: Script) -> None:
        """Begin with a script."""
        self.state = State(script)

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/_sandbox/stats", self._stats)
        app.router.add_post("/_sandbox/{action:script|faults|reset}", self._change)
        app.router.add_route("*", "/oauth/2.0/token", self._token)
        app.router.add_route("*", "/{path:.*}", self._call)
        return app

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        if not _is_local(request):
            return _error(3)
        return web.json_response(self.state.stats(arrivals="arrivals" in request.query))

    async def _change(self, request: web.Request) -> web.StreamResponse:
        if not _is_local(request):
            return _error(3)
        content = await request.read()
        try:
            match request.match_info["action"]:
                case "script":
                    self.state.play(Script.model_validate_json(content))
                case "faults":
                    self.state.set_faults(_FAULTS.validate_json(content))
                case _:
                    self.state.reset()
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            return web.json_response({"errors": wrong}, status=400)
        return web.json_response({"status": "ok"})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.state.token_requests += 1
        await self._cross_network()
        given = dict(request.query)
        if request.method == "POST" and request.content_type == "application/x-www-form-urlencoded":
            given |= {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        fault = self.state.token_fault(given.get("client_id", ""))
        if fault is not None and fault.kind == "token_hang":
            await asyncio.sleep(fault.seconds)
            return _cut(request)
        token = fault or self.state.issue_token(given.get("client_id", ""), given.get("client_secret", ""))
        if not isinstance(token, str):
            refusal = {"error": "invalid_client", "error_description": "unknown client id"}
            return web.json_response(refusal, status=401)
        return web.json_response(
            {
                "access_token": token,
                "expires_in": self.state.script.token_seconds,
                "scope": "public brain_all_scope vis-ocr_ocr brain_ocr_scope",
            }
        )

    async def _call(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        await self._cross_network()
        arrived = time.monotonic()
        endpoint = request.path.removeprefix(_OCR)
        if request.method != "POST" or not request.path.startswith(_OCR) or endpoint not in ANSWERS:
            return _error(3)
        self.state.arrivals += 1
        account = self.state.account_of(request.query.get("access_token", ""))
        if isinstance(account, int):
            self.state.log.append((arrived, "", endpoint, account))
            return _error(account)
        code = 6
        if account.endpoints is None or endpoint in account.endpoints:
            fault = self.state.fault(account, endpoint, is_accepted=False)
            if fault is not None and fault.kind == "cut":
                return _cut(request)
            code = self.state.admit(account, endpoint, arrived) if fault is None else fault.code or 0
        self.state.log.append((arrived, account.api_key, endpoint, code))
        if code:
            self.state.usage_of(account, endpoint).refused[str(code)] += 1
            return _error(code)
        window = self.state.usage_of(account, endpoint).window
        try:
            return await self._work(request, account, endpoint, content)
        finally:
            self.state.leave(window)

    async def _work(
        self, request: web.Request, account: ScriptedAccount, endpoint: str, content: bytes
    ) -> web.StreamResponse:
        """A call that was taken: it counts, whatever becomes of it."""
        fault = self.state.fault(account, endpoint, is_accepted=True)
        if fault is not None and fault.kind == "hang":
            await asyncio.sleep(fault.seconds)
            return _cut(request)
        digest = picture_digest(content)
        await asyncio.sleep(self._draw(self.state.script.latency))
        if not digest:
            return _error(216101 if digest is None else 216201)
        body = {"log_id": next(log_ids)} | ANSWERS[endpoint](digest)
        if fault is None:
            return _json(body)
        return await _spoiled(request, fault, json.dumps(body, ensure_ascii=False).encode())

    async def _cross_network(self) -> None:
        shortest, longest = self.state.script.network_delay_seconds
        if longest > 0:
            await asyncio.sleep(self.state.random.uniform(shortest, longest))

    def _draw(self, latency: Latency) -> float:
        if latency.median_seconds == 0:
            return 0.0
        sigma = math.log(latency.p95_seconds / latency.median_seconds) / _P95_DEVIATIONS
        return self.state.random.lognormvariate(math.log(latency.median_seconds), sigma)


async def _spoiled(request: web.Request, fault: ScriptedFault, body: bytes) -> web.StreamResponse:
    """A good answer, spoiled on its way."""
    transport = request.transport
    match fault.kind:
        case "html_502":
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        case "garbage":
            return web.Response(body=b"\x00\xff{not json", content_type="application/json")
        case "empty":
            return web.Response()
        case "slow_body":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.content_length = len(body)
            await response.prepare(request)
            for place in range(len(body)):
                await response.write(body[place : place + 1])
                await asyncio.sleep(_DRIP_SECONDS)
            return response
        case "slow_headers" | "half_body" if transport is not None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            if fault.kind == "half_body":
                transport.write(head + body[: len(body) // 2])
            else:
                for place in range(len(head)):
                    transport.write(head[place : place + 1])
                    await asyncio.sleep(_DRIP_SECONDS)
                transport.write(body)
    return _cut(request)


def _is_local(request: web.Request) -> bool:
    """Whether it comes from this machine: the script needs no key, so nobody else may change it."""
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without another byte."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _error(code: int) -> web.Response:
    return _json({"log_id": next(log_ids), "error_code": code, "error_msg": _MESSAGES.get(code, "scripted error")})


def _json(body: Mapping[str, object]) -> web.Response:
    return web.Response(body=json.dumps(body, ensure_ascii=False).encode(), content_type="application/json")
