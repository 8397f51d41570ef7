"""Redis: nothing is evicted, and every write is in the append-only file within a second."""

from compose.local.probes import redis_answers
from compose.local.process import servants_file
from compose.local.service import Server, program

CONFIGURATION = """\
port {port}
bind 127.0.0.1
dir {folder}
requirepass {password}
appendonly yes
save ""
maxmemory-policy noeviction
"""


class Redis(Server):
    name = "redis"
    waits_for = "its append-only file to be read"
    ports = ("redis",)

    @property
    def password(self) -> str:
        return self.stack.password("ET_REDIS_URL")

    def prepare(self) -> None:
        super().prepare()
        configuration = CONFIGURATION.format(port=self.stack.ports["redis"], folder=self.folder, password=self.password)
        servants_file(self.folder / "redis.conf", configuration)

    def command(self) -> list[str]:
        return [program("redis-server"), f"{self.folder}/redis.conf"]

    async def ready(self) -> bool:
        return await redis_answers(self.stack.ports["redis"], self.password)
