"""Does it answer? One question for each kind of server, asked with the standard library alone."""

import asyncio
import struct

PATIENCE_SECONDS = 3.0  # for one answer; who asks, asks again
API_VERSIONS = struct.pack(
    ">ihhih", 10, 18, 0, 1, -1
)  # Kafka's handshake, version 0: length, key, version, id, no client


async def ask(port: int, question: bytes, answer_bytes: int) -> bytes:
    """The first bytes of the answer; none when nobody answers that much."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(question)
                return await reader.readexactly(answer_bytes)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return b""


async def kafka_answers(port: int) -> bool:
    """A broker accepts connections long before it serves requests, so an answer counts and a connection does not."""
    return len(await ask(port, API_VERSIONS, 8)) == 8


async def redis_answers(port: int, password: str) -> bool:
    """While it reads its file it is there, and answers -LOADING."""
    answer = b"+OK\r\n+PONG"
    return await ask(port, f"AUTH {password}\r\nPING\r\n".encode(), len(answer)) == answer


async def http_answers(port: int, path: str) -> bool:
    """With a status below 300."""
    question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    return (await ask(port, question, 10)).startswith(b"HTTP/1.1 2")


async def succeeds(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0
