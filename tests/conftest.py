"""What every test may ask for: servers, started when the first test needs them, and settings with a prefix of their own."""

import contextlib
import itertools
import os
import threading
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from compose.local.stack import PROGRAMS, SERVERS
from compose.settings import Settings
from tests.dealing import Dealing, turn
from tests.elsewhere import Elsewhere, build_wheel
from tests.servers import MARK, Run, Servers

RUN = pytest.StashKey[Servers]()
FAILED = pytest.StashKey[bool]()
SYSTEM = {*SERVERS, *PROGRAMS}
numbers = itertools.count(1)

# How long an example takes is the machine's business, not the code's; a test as a whole has its time-out.
hypothesis_settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """The run's addresses go to the environment before any test module is imported: `settings()` then answers them.

    With `-n 2` two processes run the tests and a third one owns the run: it chooses the addresses, and it stops the servers.
    """
    if is_shared(config):
        servers = Servers(Run(*config.workerinput["run"]), name=config.workerinput["workerid"])
    else:
        servers = Servers(os.environ.get("ET_SERVERS", "local"))
    config.stash[RUN] = servers
    os.environ.update(servers.endpoints(servers.run.prefix) | {MARK: servers.run.folder})


def is_shared(config: pytest.Config) -> bool:
    """Whether another process owns this run."""
    return hasattr(config, "workerinput")


def pytest_configure_node(node: Any) -> None:
    """A process that is to run tests is told whose servers."""
    node.workerinput["run"] = tuple(node.config.stash[RUN].run)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Dealing:
    config.option.loadscopereorder = False
    return Dealing(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: turn(PurePosixPath(item.path.relative_to(config.rootpath))))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the servers that the chosen tests need, all at once, while the first tests run that need nothing.

    Our own programs wait until somebody asks for the system: a worker that has nothing to do still asks Kafka all the time.
    """
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = {name for name in SERVERS if name in asked or "system" in asked}
    if needed and not session.config.option.collectonly:
        threading.Thread(target=_start_early, args=(session.config.stash[RUN], needed), daemon=True).start()


def _start_early(servers: Servers, names: set[str]) -> None:
    # The fixture that needs them tries again, and fails where it is seen.
    with contextlib.suppress(Exception):
        servers.need(names)


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[FAILED] = bool(session.testsfailed)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Its owner ends a run, whatever became of the processes that ran the tests."""
    if (servers := config.stash.get(RUN, None)) and not is_shared(config):
        servers.close(keep_logs=config.stash.get(FAILED, False))


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The servers of this run; `servers.need({"kafka"})` waits until they answer."""
    return pytestconfig.stash[RUN]


@pytest.fixture
def settings(servers: Servers) -> Settings:
    """Settings with a prefix that no other test has: nothing exists there yet."""
    return servers.settings(f"{servers.prefix}{next(numbers)}_")


def _server(name: str) -> object:
    @pytest.fixture(scope="session", name=name)
    def server(servers: Servers) -> None:
        servers.need({name})

    server.__doc__ = f"{name} answers, at the address that `settings` has."
    return server


kafka, postgres, redis, elasticsearch, s3 = map(_server, SERVERS)


@pytest.fixture(scope="session")
def system(servers: Servers) -> Settings:
    """The whole system runs, one for all: gateway, worker and media worker on servers of the run. Returns its settings."""
    servers.need(SYSTEM)
    return servers.settings(servers.run.prefix)


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Another service's Python, with our wheel and a Kafka client installed."""
    elsewhere = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    elsewhere.install(str(build_wheel(tmp_path_factory.mktemp("dist"))), "aiokafka")
    return elsewhere
