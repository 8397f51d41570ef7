"""Every address and secret, read once from the environment or `.env`. What is true of the system is in `streams.yaml`."""

from functools import cache
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

MINIMUM_SECRET_LENGTH = 16


class WrongSetting(Exception):
    """A setting is missing or out of its bounds; the message names it and what it takes."""


class Settings(BaseSettings):
    """Read with `settings()`; each field is the environment variable `ET_` + its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="ET_", env_file=".env", dotenv_filtering="match_prefix", extra="forbid", frozen=True
    )

    prefix: Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,30}_)?$")] = Field(
        "", description="put before each topic, index, key, schema and consumer group, so that systems share servers"
    )
    secret_key: SecretStr = Field(min_length=MINIMUM_SECRET_LENGTH, description="signs tokens and cookies")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of the brokers, separated by commas")
    postgres_dsn: SecretStr = Field(description="postgresql://user:password@host:port/database")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis://[:password@]host:port/db")
    elasticsearch_url: SecretStr = Field(
        SecretStr("http://127.0.0.1:9200"), description="http(s)://[user:password@]host:port"
    )
    s3_endpoint: HttpUrl = Field(HttpUrl("http://127.0.0.1:8333"), description="http(s)://host:port of any S3")
    s3_access_key: SecretStr = Field(description="the S3 access key")
    s3_secret_key: SecretStr = Field(description="the S3 secret key")
    s3_region: str = Field("us-east-1", description="the S3 region that requests are signed for")
    s3_bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        "entertainmenttime", description="the bucket; created when missing"
    )

    gateway_host: str = Field("127.0.0.1", description="the address the gateway listens on")
    gateway_port: int = Field(8000, ge=1, le=65535, description="the port the gateway listens on")
    gateway_processes: int = Field(2, ge=1, le=64, description="gateway processes that share the port (SO_REUSEPORT)")
    gateway_url: HttpUrl = Field(HttpUrl("http://127.0.0.1:8000"), description="where clients reach the gateway")
    upload_part_bytes: int = Field(5 * 2**20, ge=5 * 2**20, le=512 * 2**20, description="size of a multipart part")
    upload_limit_bytes: int = Field(64 * 2**30, ge=1, description="largest film accepted")

    worker_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        "", description="a name that stays the same over restarts, so that a restart is no rebalance; empty: none"
    )
    media_slots: int = Field(1, ge=1, le=64, description="films that one media worker transcodes side by side")
    media_lease_seconds: float = Field(30, ge=2, le=3600, description="how long a job stays claimed without a renewal")
    media_encode_preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = Field(
        "veryfast", description="x264's preset: speed against bytes"
    )

    metrics_host: str = Field("127.0.0.1", description="the address where workers answer /live, /ready and /metrics")
    worker_metrics_port: int = Field(0, ge=0, le=65535, description="the worker's port for them; 0: none")
    media_metrics_port: int = Field(0, ge=0, le=65535, description="the media worker's port for them; 0: none")

    admin_token: SecretStr | None = Field(
        None,
        min_length=MINIMUM_SECRET_LENGTH,
        description="the bearer token that webhooks are managed with; none: nobody may",
    )
    webhook_private_addresses: bool = Field(
        False, description="whether webhooks may lead into private networks and to this machine"
    )
    webhook_give_up_hours: float = Field(
        24, gt=0, le=24 * 365, description="after so long without a success a webhook is paused; its cursor stays"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe line logged")
    log_format: Literal["console", "json"] = Field("console", description="for a person or for a machine")

    def named(self, name: str) -> str:
        """`name` as it is called on shared servers: with this system's prefix."""
        return self.prefix + name

    @property
    def postgres_schema(self) -> str:
        """The Postgres schema that holds every table of this system."""
        return self.named("entertainmenttime")

    @property
    def bucket(self) -> str:
        """The bucket with the prefix, in S3's alphabet."""
        return self.named(self.s3_bucket).replace("_", "-")


@cache
def settings() -> Settings:
    """Raises WrongSetting with every wrong or missing variable named."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"ET_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise WrongSetting("wrong settings (environment or .env): " + "; ".join(lines)) from None


def without_password(url: SecretStr | str) -> str:
    """An address as it may be shown in logs and messages."""
    plain = url.get_secret_value() if isinstance(url, SecretStr) else str(url)
    parts = urlsplit(plain)
    host = parts.hostname or ""
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="").geturl()
