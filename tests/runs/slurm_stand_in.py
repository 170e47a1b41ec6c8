"""`sbatch`, `srun` and `scontrol requeue` without a cluster: jobs are processes of this machine.

State is in the folder $SLURM_STAND_IN: ``<job>.sh`` and ``<job>.json`` (the script and what it was submitted with),
``<job>.pid``, and ``requeued``, a line for each requeued job. With $SLURM_STAND_IN_HOLD set, jobs stay in the queue.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

STATE = Path(os.environ["SLURM_STAND_IN"])
WAIT_THEN = 'while kill -0 "$0" 2>/dev/null; do sleep 0.1; done; exec "$@"'


def sbatch(arguments: list[str]) -> None:
    options = list(takewhile(lambda word: word.startswith("--"), arguments))
    script, *rest = arguments[len(options) :]
    text = Path(script).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?'?(.*?)'?$", text, re.M)) | dict(
        option.removeprefix("--").split("=", 1) for option in options
    )
    number = len(list(STATE.glob("*.sh"))) + 1
    (STATE / f"{number}.sh").write_text(text)
    jobs = [str(number)]
    if "array" in options:
        first, last = options["array"].split("-")
        jobs = [f"{number}_{index}" for index in range(int(first), int(last) + 1)]
    for job in jobs:
        (STATE / f"{job}.json").write_text(json.dumps({"options": options, "arguments": rest}))
        if "SLURM_STAND_IN_HOLD" not in os.environ:
            start(job)
    print(f"Submitted batch job {number}")


def start(job: str, after: str = "") -> None:
    """Starts a job, or starts it again when the process ``after`` has ended."""
    submitted = json.loads((STATE / f"{job}.json").read_text())
    number, _, index = job.partition("_")
    environment = {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NUM_NODES": "1"}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    output = submitted["options"]["output"].replace("%j", job).replace("%A", number).replace("%a", index)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    command = ["bash", str(STATE / f"{number}.sh"), *submitted["arguments"]]
    if after:
        command = ["sh", "-c", WAIT_THEN, after, *command]
    with open(output, "a") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    (STATE / f"{job}.pid").write_text(str(process.pid))


def srun(arguments: list[str]) -> None:
    """Runs the command, which is one of Python, in its own place."""
    command = arguments[arguments.index(sys.executable) :]
    os.execvp(command[0], command)


def scontrol(arguments: list[str]) -> None:
    verb, job = arguments
    assert verb == "requeue"
    with (STATE / "requeued").open("a") as file:
        file.write(f"{job}\n")
    start(job, after=(STATE / f"{job}.pid").read_text())


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
