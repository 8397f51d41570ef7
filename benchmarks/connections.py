"""HTTP over connections that are kept, as cheaply as Python can: a client on the server's machine takes its work from it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"


class Answer(NamedTuple):
    """Its head as it came, and its body."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: str) -> str:
        """Raises KeyError when it is not there."""
        for line in self.head.split(b"\r\n")[1:]:
            found, _, value = line.decode("latin-1").partition(":")
            if found.lower() == name.lower():
                return value.strip()
        raise KeyError(name)


class _Connection(asyncio.Protocol):
    """One request at a time, whose answer says how long it is."""

    def __init__(self) -> None:
        self._received = b""
        self._answered: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not of its class

    async def ask(self, request: bytes) -> Answer:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, rest = self._received.partition(HEAD_END)
        length = LENGTH.search(head)
        if ended and self._answered and length and len(rest) >= int(length[1]):
            self._received = b""
            self._answered.set_result(Answer(head, rest))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered and not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("the server has closed the connection"))


class Connections:
    """So many to one server; a request waits for a free one. Raises OSError when one is lost, RuntimeError for an answer of no success."""

    def __init__(self, free: list[_Connection], host: str) -> None:
        self._free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        for connection in free:
            self._free.put_nowait(connection)
        self._host = host

    async def get(self, path: str) -> Answer:
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    async def post(self, path: str, json: bytes) -> Answer:
        about = f"Content-Type: application/json\r\nContent-Length: {len(json)}"
        return await self._ask(f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n{about}\r\n\r\n".encode() + json)

    async def _ask(self, request: bytes) -> Answer:
        connection = await self._free.get()
        answer = await connection.ask(request)
        self._free.put_nowait(connection)
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{request!r} was answered {answer.head!r} {answer.body!r}")
        return answer


@asynccontextmanager
async def connected(host: str, port: int, connections: int) -> AsyncIterator[Connections]:
    """Open as long as it is used."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(_Connection, host, port))[1] for _ in range(connections)]
    try:
        yield Connections(opened, f"{host}:{port}")
    finally:
        for connection in opened:
            connection.transport.close()
