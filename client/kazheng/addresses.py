"""Where a server that listens on this machine is reached from this machine."""

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - read, not bound


def local_url(host: str, port: int) -> str:
    """How a process on this machine reaches a server that listens there, maybe on every address."""
    host = _ANY_ADDRESS.get(host, host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{port}"
