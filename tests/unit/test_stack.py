"""What a local stack is, before anything of it runs."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.local.ports import check_free
from compose.local.process import as_servant
from compose.local.requirements import check_disk
from compose.local.servers import S3, Redis
from compose.local.servers.kafka import new_cluster_id
from compose.local.stack import PORTS, TWIN_OFFSET, CannotStart, Stack, read_env
from compose.settings import Settings


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path / ".stack")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def remember(stack: Stack, **ports: int) -> Stack:
    stack.folder.mkdir(parents=True, exist_ok=True)
    stack.ports_file.write_text(json.dumps(ports))
    return stack


def test_a_port_in_use_is_named_with_who_has_it_and_what_moves_it(stack: Stack, taken_port: int) -> None:
    remember(stack, redis=taken_port)
    with pytest.raises(CannotStart, match=rf"port {taken_port}.*redis.*process {os.getpid()} .*STACK_REDIS_PORT"):
        check_free(stack, [Redis(stack)])


def test_a_taken_twin_of_a_port_is_found_before_the_start(stack: Stack, taken_port: int) -> None:
    remember(stack, s3=taken_port - TWIN_OFFSET)
    with pytest.raises(CannotStart, match=f"port {taken_port}.*STACK_S3_PORT"):
        check_free(stack, [S3(stack)])


def test_a_port_that_is_no_number_is_refused_by_name(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_KAFKA_PORT", "ninety")
    with pytest.raises(CannotStart, match="STACK_KAFKA_PORT=ninety"):
        _ = stack.ports


def test_a_port_once_chosen_stays_without_its_variable(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_KAFKA_PORT", "12345")
    stack.lay_out()
    monkeypatch.delenv("STACK_KAFKA_PORT")
    assert Stack(stack.folder).ports["kafka"] == 12345


def test_ports_and_their_twins_lie_below_those_of_outgoing_connections() -> None:
    first_outgoing = 32768
    assert all(port + TWIN_OFFSET < first_outgoing for port in PORTS.values())
    assert len({*PORTS.values()}) == len(PORTS)


def test_secrets_are_made_once(stack: Stack) -> None:
    stack.lay_out()
    assert Stack(stack.folder).endpoints == stack.endpoints


def test_two_stacks_share_no_secret(tmp_path: Path) -> None:
    one, other = Stack(tmp_path / "one").endpoints, Stack(tmp_path / "other").endpoints
    assert all(
        one[name] != other[name] for name in ("ET_SECRET_KEY", "ET_S3_SECRET_KEY", "ET_POSTGRES_DSN", "ET_REDIS_URL")
    )


def test_the_endpoints_are_for_their_owner_alone(stack: Stack) -> None:
    stack.lay_out()
    assert stat.S_IMODE(stack.endpoints_file.stat().st_mode) == 0o600


def test_every_endpoint_is_a_setting(stack: Stack) -> None:
    stack.lay_out()
    assert read_env(stack.endpoints_file).keys() <= {f"ET_{name}".upper() for name in Settings.model_fields}


def test_too_little_disk_is_a_sentence_with_the_place(stack: Stack) -> None:
    with pytest.raises(CannotStart, match=rf"{stack.folder.parent} has .* GB free"):
        check_disk(stack, needed_gigabytes=1e9)


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    assert not any(new_cluster_id().startswith("-") for _ in range(1_000))


@pytest.mark.skipif(os.geteuid() != 0, reason="servers run as whoever starts them, unless that is root")
def test_a_server_in_a_closed_folder_may_walk_there_and_nothing_else(tmp_path: Path) -> None:
    closed, open_ = tmp_path / "closed", Path("/usr")
    closed.mkdir(mode=0o700)
    assert "--ambient-caps=+dac_read_search" in as_servant(["true"], closed)
    assert "--ambient-caps=+dac_read_search" in as_servant(["true"], open_, closed)
    assert not any("caps" in word for word in as_servant(["true"], open_))
