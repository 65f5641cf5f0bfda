"""The one reader of the environment.

Every name is `KAZHENG_…`, listed with unit and default in `.env.example`. Three places are read, the first wins:
the process environment, `.env` in the working directory, and `generated.env` in `KAZHENG_HOME`, where `kazheng up`
writes what it made up for one machine (passwords, addresses of the embedded servers, the first API key).
So a command in a second terminal finds the running stack without being told.
"""

import ssl
from datetime import timedelta, timezone
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography.fernet import Fernet
from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic.functional_validators import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.domain.prices import DEFAULT_PRICES, make_prices
from shared.domain.quota import Billing

GENERATED_FILE = "generated.env"


class SettingsError(Exception):
    """Some settings are missing or wrong; the message lists every one of them."""


class Settings(BaseSettings):
    """Everything the processes can be told, frozen at start."""

    model_config = SettingsConfigDict(
        env_prefix="KAZHENG_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    # Both the API and the workers
    home: Path = Field(Path(".kazheng"), description="folder of everything `kazheng up` keeps on this machine")
    database_url: SecretStr | None = Field(None, description="postgresql://… ; unset: the embedded PostgreSQL")
    redis_url: SecretStr | None = Field(None, description="redis://… ; unset: the embedded Valkey")
    image_store_url: str | None = Field(
        None, description="file:///… or s3://bucket/prefix; unset: $KAZHENG_HOME/images"
    )
    s3_endpoint_url: str | None = Field(None, description="endpoint of an S3-compatible store; unset: AWS")
    secret_key: SecretStr | None = Field(None, description="Fernet key that seals account secrets and tokens")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="quietest line that is logged: DEBUG, INFO, WARNING, ERROR"
    )
    log_format: Literal["console", "json"] = Field("json", description="json, or console for people")
    metrics_dir: Path | None = Field(None, description="shared folder of the metric files of all processes")
    task_events: bool = Field(
        True, description="Celery task events, which Flower needs; costs up to 45 % of throughput"
    )

    # API
    api_host: str = Field("127.0.0.1", description="address the API listens on")
    api_port: int = Field(8080, ge=1, le=65535, description="port the API listens on")
    api_workers: int = Field(2, ge=1, le=64, description="API processes")
    api_threads: int = Field(160, ge=4, le=1000, description="threads in each API process, held polls included")
    api_poll_threads: int = Field(128, ge=1, le=990, description="of these, threads that held polls may occupy")
    max_image_bytes: int = Field(20_000_000, ge=1_000, description="largest image accepted, bytes")
    max_image_pixels: int = Field(100_000_000, ge=10_000, description="largest image accepted, width times height")
    max_batch_bytes: int = Field(64_000_000, ge=100_000, description="largest request with items of a batch, bytes")
    max_archive_bytes: int = Field(4_000_000_000, ge=100_000, description="largest ZIP or manifest accepted, bytes")
    max_batch_items: int = Field(200_000, ge=1, description="items one ZIP or manifest may have")
    fetch_timeout_seconds: float = Field(10.0, gt=0, description="total time to fetch one image_url")
    idempotency_ttl_hours: int = Field(24, ge=1, description="how long an Idempotency-Key is remembered")
    outbound_allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="private networks that client-given URLs may reach, comma separated"
    )
    outbound_allow_http: bool = Field(False, description="allow http:// (not only https://) in client-given URLs")
    outbound_ca_file: Path | None = Field(
        None, description="certificates (PEM) that hosts of client-given URLs are checked by; unset: public authorities"
    )

    # Workers
    worker_threads: int = Field(32, ge=1, le=512, description="jobs one worker process holds at a time")
    prepare_threads: int = Field(2, ge=1, le=64, description="images one worker process decodes at a time")
    prepare_seconds: float = Field(30.0, gt=0, description="what decoding one image may take")
    prepare_memory_mb: int = Field(2_000, ge=200, description="memory (address space) of a process that decodes, MB")
    lease_seconds: int = Field(15, ge=8, description="a worker not heard of for so long is dead; its jobs go to others")
    permit_wait_seconds: float = Field(30.0, gt=0, description="longest wait of one job for its turn at the provider")
    permit_jitter_seconds: float = Field(
        0.05, ge=0, le=0.5, description="spread between permit and arrival to reckon with until it is measured"
    )
    network_probe_seconds: float = Field(
        2.0, ge=0, description="how often the way to the provider is measured; 0: never, the setting above holds"
    )
    bulk_share: float = Field(
        0.1, ge=0, le=1, description="share of the calls that bulk keeps under a flood of interactive jobs"
    )
    account_order: Annotated[tuple[Billing, ...], NoDecode] = Field(
        tuple(Billing), description="accounts are used in this order where several could go, comma separated"
    )
    quota_utc_offset_hours: float = Field(
        8.0, ge=-12, le=14, description="the provider's day turns at midnight so far east of UTC"
    )
    cache_days: int = Field(
        30, ge=0, description="an equal image of a client is answered from its earlier result for so long; 0: never"
    )
    max_attempts: int = Field(5, ge=1, le=50, description="calls made for one job before it fails")
    connect_timeout_seconds: float = Field(5.0, gt=0, description="time to connect to the provider")
    read_timeout_seconds: float = Field(30.0, gt=0, description="longest silence of the provider")
    call_deadline_seconds: float = Field(45.0, gt=0, description="total time of one provider call")
    webhook_threads: int = Field(
        64, ge=4, le=512, description="deliveries one webhook worker sends at a time; start it with 4 threads more"
    )
    webhook_at_a_time: int = Field(4, ge=1, le=100, description="of these, to one endpoint in good health")
    webhook_timeout_seconds: float = Field(15.0, gt=0, le=60, description="total time of one delivery")
    webhook_disable_days: float = Field(5.0, gt=0, description="an endpoint that takes nothing for so long is disabled")
    event_days: int = Field(30, ge=4, description="how long events and deliveries are kept")
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a worker's own /metrics; unset: it is read through the API's"
    )

    # Baidu: the account made from the environment
    baidu_base_url: str = Field("https://aip.baidubce.com", description="where Baidu's API is")
    baidu_api_key: str | None = Field(
        None,
        validation_alias=AliasChoices("BAIDU_API_KEY", "KAZHENG_BAIDU_API_KEY"),
        description="API Key of the Baidu application; unset: the sandbox answers",
    )
    baidu_secret_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("BAIDU_SECRET_KEY", "KAZHENG_BAIDU_SECRET_KEY"),
        description="Secret Key of the Baidu application",
    )
    baidu_billing: Billing = Field(Billing.FREE, description="how the account is paid: free, pack or postpaid")
    baidu_qps: float = Field(2.0, gt=0, le=1000, description="calls a second and endpoint the account may make")
    prices: dict[str, list[tuple[int, float]]] = Field(
        DEFAULT_PRICES, description="CNY a call by endpoint, in tiers of calls a month, as JSON; * for all others"
    )

    # Sandbox
    sandbox_host: str = Field("127.0.0.1", description="address the sandbox listens on")
    sandbox_port: int = Field(8081, ge=1, le=65535, description="port the sandbox listens on")
    sandbox_api_key: str = Field("sandbox-api-key", description="API Key the sandbox takes")
    sandbox_secret_key: SecretStr = Field(SecretStr("sandbox-secret-key"), description="Secret Key the sandbox takes")
    sandbox_qps: float = Field(2.0, gt=0, description="calls a second and endpoint before error 18")
    sandbox_day_limit: int | None = Field(
        None, ge=0, description="calls a day and endpoint before error 17; unset: none"
    )
    sandbox_token_seconds: int = Field(2_592_000, ge=1, description="life of an access token")
    sandbox_failures: Literal["error", "status"] = Field(
        "status", description="how a picture that is no ID card is answered: error 216633, or image_status non_idcard"
    )

    # Flower, and the servers `kazheng up` embeds
    flower_port: int = Field(5555, ge=1, le=65535, description="port Flower listens on")
    flower_user: str = Field("kazheng", description="user of Flower's page")
    flower_password: SecretStr | None = Field(None, description="its password, without a comma; unset: made up")
    postgres_port: int = Field(15432, ge=1, le=65535, description="port of the embedded PostgreSQL")
    valkey_port: int = Field(16379, ge=1, le=65535, description="port of the embedded Valkey")

    # Command line
    api_url: str | None = Field(None, description="where `kazheng submit` finds the API; unset: api_host and api_port")
    api_key: SecretStr | None = Field(None, description="API key of `kazheng submit`")

    @field_validator("outbound_allowed_networks", "account_order", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("outbound_ca_file")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(str(value))
            except OSError:  # SSLError included
                raise ValueError("is no file of certificates (PEM)") from None
        return value

    @field_validator("prices")
    @classmethod
    def _are_prices(cls, value: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
        make_prices(value)
        return value

    @field_validator("secret_key")
    @classmethod
    def _is_fernet_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                Fernet(value.get_secret_value())
            except ValueError:
                raise ValueError("is no Fernet key; make one with `kazheng keys generate-secret`") from None
        return value

    @classmethod
    def from_env(cls, *, generated: bool = True) -> Self:
        """Read the settings.

        Args:
            generated: also read what `kazheng up` wrote in its home.

        Raises:
            SettingsError: a value is wrong; all wrong ones are named.
        """
        try:
            named = cls(_env_file=".env")
            return cls(_env_file=(named.home / GENERATED_FILE, ".env")) if generated else named
        except ValidationError as error:
            lines = [f"  KAZHENG_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise SettingsError("Settings are wrong:\n" + "\n".join(lines)) from None

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def longest_attempt_seconds(self) -> float:
        """How long a worker in good health may hold a job: waiting for its turn, and two calls."""
        return self.permit_wait_seconds * 2 + self.call_deadline_seconds * 2

    @property
    def quota_zone(self) -> timezone:
        """The zone in which the provider's day turns."""
        return timezone(timedelta(hours=self.quota_utc_offset_hours))

    @property
    def images_url(self) -> str:
        """Where image bytes are kept."""
        return self.image_store_url or (self.home.resolve() / "images").as_uri()

    def require_database_url(self) -> str:
        """The database address in the form SQLAlchemy takes.

        Raises:
            SettingsError: no database is configured and no embedded one was started here.
        """
        if self.database_url is None:
            raise SettingsError("KAZHENG_DATABASE_URL is not set, and `kazheng up` has not started a database here.")
        url = self.database_url.get_secret_value()
        for prefix in ("postgres://", "postgresql://"):
            if url.startswith(prefix):
                return "postgresql+psycopg2://" + url.removeprefix(prefix)
        return url

    def require_redis_url(self) -> str:
        """The address of Redis or Valkey.

        Raises:
            SettingsError: none is configured and no embedded one was started here.
        """
        if self.redis_url is None:
            raise SettingsError("KAZHENG_REDIS_URL is not set, and `kazheng up` has not started a Valkey here.")
        return self.redis_url.get_secret_value()

    def require_secret_key(self) -> str:
        """The key that seals account secrets.

        Raises:
            SettingsError: it is not set.
        """
        if self.secret_key is None:
            raise SettingsError("KAZHENG_SECRET_KEY is not set. Make one with `kazheng keys generate-secret`.")
        return self.secret_key.get_secret_value()
