"""The ``ocp-dc export`` command: a model as a file that can be shared, since nothing of it is unpickled."""

from __future__ import annotations

import argparse
from pathlib import Path

from ocp_dc.errors import InputError

SUFFIX = ".safetensors"


def add_export_command(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``export CHECKPOINT OUT``; see :func:`~ocp_dc.info.add_info_command`."""
    parser = subparsers.add_parser("export", help="a model as safetensors, to share: nothing of it is unpickled")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="checkpoint.pt of a run (unpickled: trust it)"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help=f"file to write, which ends in {SUFFIX}")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(func=_export)


def _export(args: argparse.Namespace) -> int:
    export(args.checkpoint, args.out, args.overwrite)
    print(f"written to {args.out}: it is taken wherever a checkpoint is")
    return 0


def export(checkpoint_path: Path, out: Path, overwrite: bool = False) -> None:
    """Writes the model of a checkpoint; see :func:`ocp_dc.trainers.exported.write_model`.

    Raises:
        InputError: the checkpoint cannot be read, or ``out`` is there, or does not end in ``.safetensors``.
    """
    if out.suffix != SUFFIX:
        raise InputError(f"{out}: give a file whose name ends in {SUFFIX}")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; name another file, or give --overwrite")
    import torch

    from ocp_dc.evaluation import load_trainer
    from ocp_dc.trainers.checkpoints import read_checkpoint
    from ocp_dc.trainers.exported import write_model

    trainer = load_trainer(checkpoint_path, cpu=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_model(read_checkpoint(checkpoint_path, torch.device("cpu")), trainer.model.state_dict(), out)
