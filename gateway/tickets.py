"""The `upload_id` of an upload in parts: a signed token with all that a gateway process must know to take a part."""

import hashlib
import hmac
import math
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

MAX_PARTS = 10_000  # S3's limit
MIB = 2**20
LIFETIME_SECONDS = 7 * 24 * 3600  # long enough to resume after a weekend
MAX_TICKET_LENGTH = 2_048


class NoTicket(ValueError):
    """Not a token of this system, or changed on its way."""


class TicketExpired(ValueError):
    """The time to finish the upload is over."""


class Ticket(NamedTuple):
    """One upload. Sizes in bytes, `expires_at` in seconds since 1970."""

    video_id: str
    object_key: str
    s3_upload_id: str
    size: int
    part_size: int
    expires_at: int

    @property
    def total_parts(self) -> int:
        return max(1, math.ceil(self.size / self.part_size))

    @property
    def expires(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)

    def size_of(self, part_number: int) -> int:
        """Every part has `part_size`, the last the remainder."""
        return min(self.part_size, self.size - (part_number - 1) * self.part_size)


def part_size_for(size: int, smallest: int) -> int:
    """A part size for `size` bytes in whole MiB, at least `smallest`, so that MAX_PARTS are enough."""
    return max(smallest, math.ceil(size / MAX_PARTS / MIB) * MIB)


def write_ticket(ticket: Ticket, secret: str) -> str:
    """The ticket as a URL-safe token."""
    return jwt.encode({"alg": "HS256"}, {"t": list(ticket), "exp": ticket.expires_at}, _key(secret))


def read_ticket(token: str, secret: str) -> Ticket:
    """Raises NoTicket, TicketExpired."""
    if len(token) > MAX_TICKET_LENGTH:
        raise NoTicket
    try:
        claims: dict[str, Any] = jwt.decode(token, _key(secret), algorithms=["HS256"]).claims
    except (JoseError, ValueError) as error:
        raise NoTicket from error
    ticket = Ticket(*claims["t"])
    if time.time() >= ticket.expires_at:
        raise TicketExpired
    return ticket


def _key(secret: str) -> OctKey:
    # A key of its own, so that no token made for another purpose passes for a ticket.
    return OctKey.import_key(hmac.digest(secret.encode(), b"upload-ticket", hashlib.sha256))
