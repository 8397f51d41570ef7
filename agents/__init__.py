"""The worker: `faust -A agents worker` folds, `faust -A agents …` looks after it.

Only Faust's command line asks for `app`; importing `agents.media` or `agents.handover` brings in no Faust.
"""

import sys
from pathlib import Path
from typing import Any

from compose.settings import WrongSetting
from compose.telemetry import refuse_to_start


def __getattr__(name: str) -> Any:
    if name == "app":
        # Faust's script has the working directory on its path only while it imports this package, not when it asks for `app`.
        root = str(Path(__file__).resolve().parent.parent)
        if root not in sys.path:
            sys.path.insert(0, root)
        # The commands register themselves with the app.
        try:
            from agents import commands
        except WrongSetting as error:
            refuse_to_start(error, "worker")
        return commands.app
    raise AttributeError(name)
