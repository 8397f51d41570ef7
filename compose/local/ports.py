"""Ports: is one free, and who has it."""

import socket
from collections.abc import Iterable

import psutil

from compose.local.service import Service
from compose.local.stack import TWIN_OFFSET, CannotStart, Stack


def check_free(stack: Stack, services: Iterable[Service]) -> None:
    """Raises CannotStart, naming each port that is taken, who has it, and the variable that moves it."""
    taken = []
    for service in services:
        for name in service.ports:
            port = stack.ports[name]
            for number in (port, port + TWIN_OFFSET) if service.twins else (port,):
                if not is_free(number):
                    taken.append(
                        f"port {number}, which {service.name} needs, is taken by {holder(number)}: "
                        f"end that, or choose another with STACK_{name.upper()}_PORT"
                    )
    if taken:
        raise CannotStart("; ".join(taken))


def is_free(port: int) -> bool:
    """On 127.0.0.1, or on every address at once, which covers it. A connection in TIME_WAIT does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """The process that listens there, as far as we may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another process"
