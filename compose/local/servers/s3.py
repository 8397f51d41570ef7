"""S3 by SeaweedFS: all its parts in one process."""

from compose.local.probes import http_answers
from compose.local.service import Server, program


class S3(Server):
    name = "s3"
    waits_for = "S3 to answer"
    ports = ("s3", "s3_master", "s3_volume", "s3_filer", "s3_admin")
    twins = True
    stop_patience_seconds = 4  # by itself it takes up to a minute, and all that it acknowledged is written

    def command(self) -> list[str]:
        ports = self.stack.ports
        return [
            program("weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={ports['s3']}",
            f"-master.port={ports['s3_master']}",
            f"-volume.port={ports['s3_volume']}",
            f"-filer.port={ports['s3_filer']}",
            f"-admin.port={ports['s3_admin']}",
            # Here, and not in /tmp, where one that another user left would be in the way.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-volume.max=1000",  # files that grow as they fill; each bucket of a test run takes one
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.stack.endpoints["ET_S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": self.stack.endpoints["ET_S3_SECRET_KEY"],
            "HOME": str(self.folder),
        }

    async def ready(self) -> bool:
        return await http_answers(self.stack.ports["s3"], "/healthz")
