"""What every test may ask for: servers, started when the first test needs them, and settings with a prefix of their own."""

import contextlib
import itertools
import os
import threading

import pytest

from compose.local.stack import PROGRAMS, SERVERS
from compose.settings import Settings
from tests.elsewhere import Elsewhere, build_wheel
from tests.servers import Servers

RUN = pytest.StashKey[Servers]()
FAILED = pytest.StashKey[bool]()
SYSTEM = {*SERVERS, *PROGRAMS}
ORDER = ("unit", "contract", "integration", "faults", "browser", "chaos")
numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """The run's addresses go to the environment before any test module is imported: `settings()` then answers them."""
    servers = config.stash[RUN] = Servers(os.environ.get("ET_SERVERS", "local"))
    os.environ.update(servers.endpoints(servers.prefix))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that need nothing first: meanwhile the servers start."""

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(config.rootpath).parts
        return next((ORDER.index(part) for part in parts if part in ORDER), len(ORDER))

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts what the chosen tests need, all at once, while the first tests run that need nothing."""
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = SYSTEM if "system" in asked else {name for name in SERVERS if name in asked}
    if needed and not session.config.option.collectonly:
        threading.Thread(target=_start_early, args=(session.config.stash[RUN], needed), daemon=True).start()


def _start_early(servers: Servers, names: set[str]) -> None:
    # The fixture that needs them tries again, and fails where it is seen.
    with contextlib.suppress(Exception):
        servers.need(names)


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[FAILED] = bool(session.testsfailed)


def pytest_unconfigure(config: pytest.Config) -> None:
    if servers := config.stash.get(RUN, None):
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
    """The whole system runs: gateway, worker and media worker on servers of the run. Returns its settings."""
    servers.need(SYSTEM)
    return servers.settings(servers.prefix)


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Another service's Python, with our wheel and a Kafka client installed."""
    elsewhere = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    elsewhere.install(str(build_wheel(tmp_path_factory.mktemp("dist"))), "aiokafka")
    return elsewhere
