"""`python -m gateway`."""

import sys

from compose.settings import WrongSetting, settings
from compose.telemetry import refuse_to_start, start_logging
from gateway.processes import Parent, run


def main() -> int:
    try:
        configured = settings()
    except WrongSetting as error:
        refuse_to_start(error, "gateway")
    start_logging(configured, "gateway")
    if configured.gateway_processes == 1:
        run()
    else:
        Parent(configured.gateway_processes).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
