"""Runs as SLURM jobs, one each, through submitit; preempted and timed-out jobs go on where their checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocp_dc.errors import InputError
from ocp_dc.runs.running import PATIENCE, run_all

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

# a job that exceeds its time is put in the queue again this often
MAX_TIMEOUTS = 20


def _option(default: str | float | int | None, kind: type, what: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": what})


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks for: the keys of a YAML file's section ``slurm``, and, but for the last, flags.

    Attributes:
        additional: any other options of sbatch, such as ``constraint``.
    """

    partition: str | None = _option(None, str, "partition (default: the cluster's, as for the next two)")
    account: str | None = _option(None, str, "account")
    qos: str | None = _option(None, str, "quality of service")
    time: float = _option(24.0, float, "hours; longer runs are requeued and go on (default 24)")
    mem: float = _option(16.0, float, "gigabytes of memory (default 16)")
    gpus: int = _option(1, int, "GPUs of a job (default 1)")
    cpus: int = _option(4, int, "CPU cores of a job (default 4)")
    additional: dict[str, str] = field(default_factory=dict)


FLAGS = {option.name: option.metadata for option in fields(SlurmSettings) if option.metadata}


def read_slurm_settings(file: Path | None, **flags: str | float | int | None) -> SlurmSettings:
    """Settings from the section ``slurm`` of a YAML file, and flags, which take precedence where not None.

    Raises:
        InputError: the file cannot be read, or a key or value in it cannot be used.
    """
    section = _read_section(file) if file is not None else {}
    return SlurmSettings(**section | {name: value for name, value in flags.items() if value is not None})


def _read_section(file: Path) -> dict:
    from ocp_dc.configuration.reading import read_config

    section = read_config(file).content.get("slurm")
    if not isinstance(section, dict):
        raise InputError(f"--slurm-config {file} has no section slurm with keys and values; add it")
    kinds = {**{name: flag["kind"] for name, flag in FLAGS.items()}, "additional": dict}
    for key, value in section.items():
        if key not in kinds:
            raise InputError(
                f"--slurm-config {file}: slurm.{key} is unknown; known: {', '.join(kinds)} (other options of sbatch "
                "go under additional)"
            )
        expected = kinds[key]
        if not isinstance(value, (int, float) if expected is float else expected):
            raise InputError(f"--slurm-config {file}: slurm.{key} is {value!r}; it must be of type {expected.__name__}")
    return section


class RunJob:
    """What a job does: one run, from wherever it stands. Submitting it again goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> str:
        (outcome,) = run_all([self.folder], jobs=1, patience=PATIENCE)
        logging.info(f"{outcome.folder.name}: {outcome.status}")
        return outcome.status

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts in the queue when the job is preempted or out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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
    import submitit

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
