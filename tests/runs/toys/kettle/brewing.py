"""The work of a run of the tea study; oolong's is killed half-way, the first time."""

import json
import os
import signal

from ocp_dc.runs.records import last_logged_step
from ocp_dc.runs.worker import Quantity, Work


def brew(folder, description):
    log = folder / description["log"]
    first = last_logged_step(log)
    for step in range(first + 1, description["steps"] + 1):
        with log.open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        if folder.name.startswith("oolong") and first == 0 and step == 10:
            os.kill(os.getpid(), signal.SIGKILL)
    steps = len(log.read_text().splitlines())
    temperature = 90.0 if folder.name.startswith("oolong") else 80.0
    return Work({"temperature": Quantity(temperature, "°C"), "bitterness": Quantity(steps / 4, "IBU")}, seconds=2.0)
