"""The Flask application."""

import warnings

from flask import Flask
from PIL import Image

from api.auth import register_auth
from api.openapi import document_json
from api.operations import Operation, register_operations
from api.problems import register_problems
from api.request_log import register_request_log
from api.routes import (
    batch_events,
    batches,
    deliveries,
    document_types,
    documentation,
    events,
    exports,
    health,
    jobs,
    quotas,
    results,
    timeline,
    usage,
    webhook_endpoints,
)
from api.services import Services, build_services, install_services
from shared.images import load_formats
from shared.settings import Settings

OPERATIONS: tuple[Operation, ...] = (
    *jobs.OPERATIONS,
    *batches.OPERATIONS,
    *webhook_endpoints.OPERATIONS,
    *deliveries.OPERATIONS,
    *events.OPERATIONS,
    *exports.OPERATIONS,
    *batch_events.OPERATIONS,
    *results.OPERATIONS,
    *timeline.OPERATIONS,
    *document_types.OPERATIONS,
    *quotas.OPERATIONS,
    *usage.OPERATIONS,
    *health.OPERATIONS,
    *documentation.OPERATIONS,
)

# Bodies are read by `POST /v1/jobs` alone, which sets its own limit.
_OTHER_BODIES_BYTES = 64 * 1024


def create_app(settings: Settings, services: Services | None = None) -> Flask:
    """The application; call it after the fork, once per process.

    Args:
        settings: what the process was told.
        services: what the routes use; built from the settings when not given.

    Raises:
        SettingsError: an address is missing.
        StorageUnavailableError: the folder of images can't be made.
    """
    load_formats(settings.max_image_pixels)
    # What Pillow only warns of is refused. Set once: `catch_warnings` is not safe between threads.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    app = Flask("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _OTHER_BODIES_BYTES
    app.config[documentation.DOCUMENT_KEY] = document_json(OPERATIONS)
    install_services(app.extensions, services or build_services(settings))
    register_request_log(app)
    register_auth(app, [operation.name for operation in OPERATIONS if operation.is_open])
    register_problems(app)
    register_operations(app, OPERATIONS)
    return app
