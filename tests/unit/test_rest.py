"""A rebuild's processes take what nobody else needs."""

import os
import subprocess
import sys
from pathlib import Path

from compose.local.stack import ROOT

AUTOGROUP = Path("/proc/self/autogroup")
LOOK = f"""
import os
from pathlib import Path
from agents.refolding import rest
rest()
print(os.sched_getscheduler(0), os.getsid(0) == os.getpid())
if Path("{AUTOGROUP}").exists():
    print(Path("{AUTOGROUP}").read_text())
"""


def test_each_is_idle_in_a_session_of_its_own_which_is_the_nicest() -> None:
    """Also of several that start at once: the kernel lets one in a tenth of a second be nicer."""
    running = [
        subprocess.Popen([sys.executable, "-c", LOOK], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for said in [process.communicate()[0] for process in running]:
        assert said.startswith(f"{os.SCHED_IDLE} True")
        assert said.rstrip().endswith(" nice 19") or not AUTOGROUP.exists()
