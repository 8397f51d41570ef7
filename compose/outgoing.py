"""Calls to addresses that others have named: signed as Standard Webhooks has it, never into our own network, never redirected."""

import base64
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from compose.settings import Settings

SECONDS = 10.0  # for a receiver to answer
CONNECT_SECONDS = 5.0
LONGEST_RETRY_AFTER_SECONDS = 3_600.0
LONGEST_URL = 2_048
SECRET_PREFIX = "whsec_"
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last four bytes
AGENT = "EntertainmentTime-Webhooks/1"


class WrongAddress(ValueError):
    """An address that is not called; the message says why."""


class Outcome(NamedTuple):
    """What came of a call: the receiver's status, or why there is none."""

    status: int | None
    error: str | None
    took_ms: float
    retry_after_seconds: float | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def words(self) -> str:
        return self.error or f"it answered {self.status}"


def is_public(address: str) -> bool:
    """Whether an IP address, or the IPv4 address inside one, belongs to the open internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def check_url(text: str, *, allow_private: bool) -> URL:
    """The address to call. Raises WrongAddress."""
    if len(text) > LONGEST_URL:
        raise WrongAddress(f"must have at most {LONGEST_URL:,} characters")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise WrongAddress("must be an address such as https://example.org/hook") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise WrongAddress("must be an http or https address with a host")
    if url.user is not None or url.password is not None or url.fragment:
        raise WrongAddress("must hold no user, no password and no fragment: calls are signed instead")
    try:
        is_private = not is_public(host)
    except ValueError:
        is_private = host.rstrip(".").lower().endswith("localhost")
    if is_private and not allow_private:
        raise WrongAddress("must not lie in a private network")
    return url


class Guard(AbstractResolver):
    """Resolves names to public addresses only; the connection is made to exactly what was checked here."""

    def __init__(self, *, allow_private: bool) -> None:
        self._resolver = ThreadedResolver()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [result for result in found if self._allow_private or is_public(result["host"])]
        if not allowed:
            raise OSError(f"{host} lies in a private network")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of the Standard Webhooks specification, version 1.0."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


class Outgoing:
    """Posts what is to be told. A receiver has ten seconds; its answer's body is not read."""

    def __init__(self, session: ClientSession, *, allow_private: bool) -> None:
        self._session = session
        self._allow_private = allow_private

    async def post(
        self, url: str, secret: str, message_id: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Outcome:
        """Never raises for what the receiver does."""
        timestamp, began = int(time.time()), time.monotonic()
        told = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, message_id, timestamp, body),
            **(headers or {}),
        }
        status, error, wait = None, None, None
        try:
            checked = check_url(url, allow_private=self._allow_private)
            async with self._session.post(checked, data=body, headers=told, allow_redirects=False) as answer:
                status, wait = answer.status, _seconds_in(answer.headers.get("Retry-After"))
                if 300 <= status < 400:
                    error = f"it answered {status}: redirects are not followed"
        except TimeoutError:
            error = f"it did not answer within {SECONDS:g} s"
        except (ClientError, OSError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        return Outcome(status, error, round((time.monotonic() - began) * 1_000, 1), wait)


def _seconds_in(retry_after: str | None) -> float | None:
    """RFC 9110 §10.2.3: a number of seconds, or a date."""
    if retry_after is None:
        return None
    try:
        if retry_after.isascii() and retry_after.strip().isdecimal():
            seconds = float(retry_after)
        else:
            moment = parsedate_to_datetime(retry_after)
            seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


@asynccontextmanager
async def open_outgoing(settings: Settings) -> AsyncIterator[Outgoing]:
    """No proxy, no cookie, no name remembered longer than a call."""
    allow_private = settings.webhook_private_addresses
    connector = TCPConnector(resolver=Guard(allow_private=allow_private), use_dns_cache=False, limit_per_host=16)
    async with ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=SECONDS, connect=CONNECT_SECONDS),
        cookie_jar=DummyCookieJar(),
        headers={"User-Agent": AGENT},
        trust_env=False,
    ) as session:
        yield Outgoing(session, allow_private=allow_private)
