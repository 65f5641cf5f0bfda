"""The least an upload endpoint can do: hash the bytes. What intake is compared with."""

import hashlib

from flask import Flask, request

app = Flask(__name__)


@app.post("/hash")
def hash_upload() -> dict[str, str]:
    """The SHA-256 of the body."""
    return {"sha256": hashlib.sha256(request.get_data()).hexdigest()}
