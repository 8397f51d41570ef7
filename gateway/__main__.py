"""`python -m gateway`."""

import sys

from compose.settings import WrongSetting, settings
from compose.telemetry import start_logging
from gateway.processes import Parent, run


def main() -> int:
    try:
        configured = settings()
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return 2
    start_logging(configured, "gateway")
    if configured.gateway_processes == 1:
        run()
    else:
        Parent(configured.gateway_processes).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
