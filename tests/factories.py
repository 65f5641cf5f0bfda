"""Rows with good defaults; override by keyword."""

import hashlib
import io
from typing import Any

from PIL import Image
from sqlalchemy import Engine

from shared.clock import utc_now
from shared.database.accounts import list_accounts, save_account
from shared.database.clients import create_key, find_client
from shared.database.engine import transaction
from shared.database.jobs import Job, NewJob, insert_job
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import Lane
from shared.domain.quota import Billing
from shared.ids import new_id
from shared.settings import Settings
from shared.storage import ImageStore, image_key


def make_client(engine: Engine, name: str = "tests") -> tuple[str, str]:
    """A client's id and one of its API keys."""
    with transaction(engine) as connection:
        key = create_key(connection, client=name, name="test")
        client_id = find_client(connection, key)
    assert client_id is not None
    return client_id, key


def make_account(
    engine: Engine,
    settings: Settings,
    base_url: str,
    *,
    qps: float = 50.0,
    name: str = "sandbox",
    billing: Billing = Billing.FREE,
) -> str:
    """An account at a provider that speaks Baidu's protocol; its id."""
    with transaction(engine) as connection:
        save_account(
            connection,
            name=name,
            provider="baidu",
            base_url=base_url,
            api_key=settings.sandbox_api_key,
            secret=settings.sandbox_secret_key.get_secret_value(),
            default_qps=qps,
            billing=billing,
            secret_key=settings.require_secret_key(),
        )
        return next(account.id for account in list_accounts(connection) if account.name == name)


def make_picture(size: tuple[int, int] = (640, 400), image_format: str = "JPEG", **options: Any) -> bytes:
    """A small picture without content."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "lightgray").save(buffer, image_format, **options)
    return buffer.getvalue()


def make_job(
    engine: Engine, client_id: str, *, store: ImageStore | None = None, content: bytes | None = None, **changes: Any
) -> Job:
    """A queued job; with a store, its image is there too."""
    job_id, now = new_id("job"), utc_now()
    content = content if content is not None else make_picture()
    document = DOCUMENT_TYPES[changes.pop("document_type", "id_card")]
    values: dict[str, Any] = {
        "id": job_id,
        "client_id": client_id,
        "document_type": document.name,
        "options": document.validate_options(changes.pop("options", {})),
        "lane": Lane.INTERACTIVE,
        "client_reference_id": None,
        "metadata": {},
        "expires_at": None,
        "image_key": image_key(job_id, now),
        "image_sha256": hashlib.sha256(content).hexdigest(),
        "image_bytes": len(content),
        "image_format": "JPEG",
        "image_width": 640,
        "image_height": 400,
        "created_at": now,
        "cache": False,  # most tests make many jobs of one picture
    }
    if store is not None:
        store.put(values["image_key"], content)
    with transaction(engine) as connection:
        return insert_job(connection, NewJob(**(values | changes)))
