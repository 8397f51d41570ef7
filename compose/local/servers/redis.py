"""Redis: nothing is evicted, and every write is in the append-only file within a second."""

from compose.local.probes import redis_answers
from compose.local.service import Server, program


class Redis(Server):
    name = "redis"
    waits_for = "its append-only file to be read"
    ports = ("redis",)

    def command(self) -> list[str]:
        settings = {
            "port": str(self.stack.ports["redis"]),
            "bind": "127.0.0.1",
            "daemonize": "no",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [program("redis-server"), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    async def ready(self) -> bool:
        return await redis_answers(self.stack.ports["redis"])
