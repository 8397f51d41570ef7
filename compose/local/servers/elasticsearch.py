"""Elasticsearch: the real server with its core modules, as its makers publish it for integration tests."""

import shutil
from pathlib import Path

from compose.local.probes import http_answers
from compose.local.process import servants_folder
from compose.local.servers.java import CONSOLE_LOGGING, HEAP_MEGABYTES, java_home
from compose.local.service import Server
from compose.local.stack import CannotStart

CONFIGURATION = """\
cluster.name: entertainmenttime
node.name: local
discovery.type: single-node
network.host: 127.0.0.1
http.port: {elasticsearch}
transport.port: {elasticsearch_transport}
path.data: {folder}/data
path.logs: {folder}/logs
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: false
"""


class Elasticsearch(Server):
    name = "elasticsearch"
    waits_for = "its cluster to be healthy"
    ports = ("elasticsearch", "elasticsearch_transport")
    stop_patience_seconds = 15

    @property
    def home(self) -> Path:
        """Raises CannotStart when Maven has not brought it yet."""
        found = sorted(self.stack.opt.glob("elasticsearch-*/bin/elasticsearch"))
        if not found:
            raise CannotStart("Elasticsearch has not been fetched yet: run `make up`")
        return found[-1].parents[1]

    def prepare(self) -> None:
        super().prepare()
        # Made anew each time: one killed while starting leaves a half-written keystore, over which no other starts.
        shutil.rmtree(self.folder / "config", ignore_errors=True)
        config = servants_folder(self.folder / "config")
        servants_folder(self.folder / "tmp")
        servants_folder(self.folder / "logs")
        options = (self.home / "config" / "jvm.options").read_text().splitlines()
        # Its garbage-collection log would take two gigabytes of the folder it is started from.
        (config / "jvm.options").write_text("\n".join(line for line in options if not line.startswith("-Xlog:gc")))
        (config / "log4j2.properties").write_text(CONSOLE_LOGGING.format(level="INFO"))
        (config / "elasticsearch.yml").write_text(CONFIGURATION.format(folder=self.folder, **self.stack.ports))

    def command(self) -> list[str]:
        return [f"{self.home}/bin/elasticsearch"]

    def environment(self) -> dict[str, str]:
        return {
            "ES_JAVA_HOME": str(java_home()),
            "ES_PATH_CONF": f"{self.folder}/config",
            "ES_TMPDIR": f"{self.folder}/tmp",
            "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={self.folder}/tmp",
            "ES_JAVA_OPTS": f"-Xms{HEAP_MEGABYTES}m -Xmx{HEAP_MEGABYTES}m",
        }

    async def ready(self) -> bool:
        return await http_answers(
            self.stack.ports["elasticsearch"], "/_cluster/health?wait_for_status=yellow&timeout=2s"
        )
