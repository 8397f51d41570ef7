"""Java 17, which Kafka and Elasticsearch both run on."""

import shutil
from functools import cache
from pathlib import Path

from compose.local.stack import CannotStart

HEAP_MEGABYTES = 512  # of each


@cache
def java_home() -> Path:
    """Raises CannotStart when there is none."""
    found = sorted(Path("/usr/lib/jvm").glob("java-17-openjdk-*/bin/java"))
    java = found[0] if found else shutil.which("java")
    if java is None:
        raise CannotStart("no Java 17 on this machine: run `make up`, which installs openjdk-17-jre-headless")
    return Path(java).resolve().parents[1]


CONSOLE_LOGGING = """\
appenders=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{{ISO8601}} %-5p %c{{1}}: %m%n
rootLogger.level={level}
rootLogger.appenderRef.console.ref=console
"""
