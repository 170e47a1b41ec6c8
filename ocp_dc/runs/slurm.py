"""Runs as SLURM jobs, one each, through submitit; preempted and timed-out jobs go on where their checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import submitit
import yaml
from submitit.helpers import Checkpointable

from ocp_dc.errors import InputError
from ocp_dc.runs.running import PATIENCE, run_all

# a job that exceeds its time is put in the queue again this often
MAX_TIMEOUTS = 20


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks for.

    Attributes:
        partition, account, qos: the cluster's default where None.
        time: hours; a job that needs longer is requeued and goes on.
        mem: gigabytes of memory.
        gpus, cpus: of a job.
        additional: any other options of sbatch, such as ``constraint``.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: float = 24.0
    mem: float = 16.0
    gpus: int = 1
    cpus: int = 4
    additional: dict[str, str] = field(default_factory=dict)


def read_slurm_settings(file: Path | None, **flags: str | float | int | None) -> SlurmSettings:
    """Settings from the section ``slurm`` of a YAML file, and flags, which take precedence where not None.

    Raises:
        InputError: the file cannot be read, or a key or value in it cannot be used.
    """
    settings = SlurmSettings()
    if file is not None:
        settings = replace(settings, **_read_section(file))
    return replace(settings, **{name: value for name, value in flags.items() if value is not None})


def _read_section(file: Path) -> dict:
    try:
        section = (yaml.safe_load(file.read_text()) or {}).get("slurm")
    except (OSError, UnicodeDecodeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"--slurm-config {file} cannot be read ({error}); give a YAML file") from error
    if not isinstance(section, dict):
        raise InputError(f"--slurm-config {file} has no section slurm with keys and values; add it")
    defaults = asdict(SlurmSettings())
    for key, value in section.items():
        if key not in defaults:
            raise InputError(
                f"--slurm-config {file}: slurm.{key} is unknown; known: {', '.join(defaults)} (other options of sbatch "
                "go under additional)"
            )
        expected = str if defaults[key] is None else type(defaults[key])
        if not isinstance(value, (int, float) if expected is float else expected):
            raise InputError(f"--slurm-config {file}: slurm.{key} is {value!r}; it must be of type {expected.__name__}")
    return section


class RunJob(Checkpointable):
    """What a job does: one run, from wherever it stands. Submitting it again goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> str:
        (outcome,) = run_all([self.folder], jobs=1, patience=PATIENCE)
        logging.info(f"{outcome.folder.name}: {outcome.status}")
        return outcome.status


def submit(folders: Sequence[Path], settings: SlurmSettings, logs: Path) -> list[str]:
    """Sends each run as a job.

    Args:
        folders: of the runs, each with its ``experiment.json``.
        settings: what the jobs ask for.
        logs: folder for submitit's files and the jobs' output, seen by all nodes.

    Returns:
        The job ids.

    Raises:
        InputError: there is no SLURM here, or it refuses the jobs.
    """
    try:
        executor = submitit.AutoExecutor(folder=logs / "%j", cluster="slurm", slurm_max_num_timeout=MAX_TIMEOUTS)
    except RuntimeError as error:
        raise InputError(f"--submit: {error} Run it where sbatch and srun are, or leave out --submit") from error
    executor.update_parameters(
        mem_gb=settings.mem,
        timeout_min=round(settings.time * 60),
        cpus_per_task=settings.cpus,
        slurm_partition=settings.partition,
        slurm_account=settings.account,
        slurm_qos=settings.qos,
        slurm_additional_parameters={"requeue": True, **settings.additional},
        **({"gpus_per_node": settings.gpus} if settings.gpus else {}),
    )
    jobs = []
    for folder in folders:
        executor.update_parameters(name=folder.name)
        try:
            jobs.append(executor.submit(RunJob(folder)).job_id)
        except (OSError, submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise InputError(
                f"--submit: sbatch refused {folder.name} ({error}); {len(jobs)} jobs were submitted before it. Correct "
                "--slurm-partition, --slurm-account and the like"
            ) from error
    return jobs
