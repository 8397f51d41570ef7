"""Kafka: one node that is broker and controller (KRaft)."""

import base64
import uuid

from compose.local.probes import kafka_answers
from compose.local.servers.java import CONSOLE_LOGGING, HEAP_MEGABYTES, java_home
from compose.local.service import Server

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{kafka_controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{kafka_controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""
LOGGING = CONSOLE_LOGGING.format(level="WARN") + "logger.server.name=kafka.server\nlogger.server.level=INFO\n"


class Kafka(Server):
    name = "kafka"
    waits_for = "the broker to serve requests"
    ports = ("kafka", "kafka_controller")

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "log4j2.properties").write_text(LOGGING)
        properties = self.folder / "server.properties"
        properties.write_text(PROPERTIES.format(folder=self.folder, **self.stack.ports))
        if not (self.folder / "log" / "meta.properties").exists():
            self.once(self.java("kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(properties)))

    def command(self) -> list[str]:
        return self.java("kafka.Kafka", f"{self.folder}/server.properties")

    def java(self, main: str, *arguments: str) -> list[str]:
        return [
            f"{java_home()}/bin/java",
            f"-Xmx{HEAP_MEGABYTES}m",
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
            "-cp",
            f"{self.stack.opt}/kafka/*",
            main,
            *arguments,
        ]

    async def ready(self) -> bool:
        return await kafka_answers(self.stack.ports["kafka"])


def new_cluster_id() -> str:
    """A UUID as Kafka writes it. One that begins with a dash would be taken for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
