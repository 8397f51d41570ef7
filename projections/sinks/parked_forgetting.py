"""Parked records name nobody who was forgotten: of what was parked before the names are blanked, and of what is parked later too.

Who parks looks into the set of the forgotten and keeps it from growing to the end of the transaction; who forgets adds to the set first.
So a record is either there when its viewer is forgotten, or whoever parks it finds them in the set.
"""

import base64
import re
from collections.abc import Collection
from typing import Any

WORD = re.compile(rb"[A-Za-z0-9._:-]+")  # what a pseudonym consists of
LONGEST = 64
FORGETFUL = (
    "parking_steps",
    "parked",
)  # in the order in which a step is carried out, so that nobody waits for each other
NAMING = """
select ctid, key, value, headers, detail from {table} t where exists (
    select from unnest($1::text[]) as viewer_id, convert_to(viewer_id, 'UTF8') as name
    where position(name in coalesce(t.key, '')) > 0 or position(name in coalesce(t.value, '')) > 0 or position(viewer_id in t.detail) > 0
    or exists (select from jsonb_array_elements(t.headers) h where position(name in decode(h ->> 1, 'base64')) > 0)
) for update
"""
BLANK = "update {table} set key = $2, value = $3, headers = $4, detail = $5, is_blank = true where ctid = $1"

Headers = list[tuple[str, bytes | None]]


def names_in(*pieces: bytes | None) -> set[str]:
    """Whatever may be a pseudonym."""
    return {word.decode() for piece in pieces for word in WORD.findall(piece or b"") if len(word) <= LONGEST}


def blanked(piece: bytes | None, viewers: Collection[str]) -> bytes | None:
    """`piece` with stars for each of `viewers`."""

    def blank(word: re.Match[bytes]) -> bytes:
        return b"*" * len(word[0]) if word[0].decode() in viewers else word[0]

    return None if piece is None else WORD.sub(blank, piece)


async def forgotten_among(connection: Any, names: Collection[str]) -> set[str]:
    """Those of `names` who are forgotten; to the end of the transaction nobody else becomes so."""
    await connection.execute("lock table forgotten in share mode")
    rows = await connection.fetch("select viewer_id from forgotten where viewer_id = any($1::text[])", list(names))
    return {row[0] for row in rows}


async def forget_parked(connection: Any, viewers: Collection[str], *, seconds: float) -> None:
    """Blank the names of `viewers` in whatever is parked, and keep them for what will be."""
    names = list(viewers)
    await connection.execute(
        "insert into forgotten (viewer_id) select unnest($1::text[]) on conflict do nothing", names, timeout=seconds
    )
    for table in FORGETFUL:
        for row in await connection.fetch(NAMING.format(table=table), names, timeout=seconds):
            headers = [
                [name, value and base64.b64encode(blanked(base64.b64decode(value), viewers) or b"").decode()]
                for name, value in row["headers"]
            ]
            detail = blanked(row["detail"].encode(), viewers) or b""
            key, value = blanked(row["key"], viewers), blanked(row["value"], viewers)
            await connection.execute(
                BLANK.format(table=table), row["ctid"], key, value, headers, detail.decode(), timeout=seconds
            )
