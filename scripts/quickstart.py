"""The quickstart's main job, on the embedded sample; see quickstart.sh. Finished steps are kept and not done again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ocp_dc.trainers.metrics_log import read_metrics

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "md17"
SPLIT = ["--train", "800", "--val", "100", "--test", "100", "--seed", "0"]
EPOCHS = 75
STEPS = EPOCHS * 40  # 800 conformations in batches of 20
SMALL = [
    *("--model.hidden_channels=64", "--model.num_filters=64", "--model.num_interactions=3"),
    *("--model.num_gaussians=32", f"--optim.max_epochs={EPOCHS}", "--optim.eval_every=200", "--optim.num_workers=0"),
]


@dataclass(frozen=True)
class Run:
    config: str
    protocol: str
    activation: str

    def folder(self, kind: str, out: Path) -> Path:
        return out / kind / self.config


RUNS = [
    Run("schnet", "paper's baseline", "shifted softplus"),
    Run("schnet_dc", "paper's method", "IReLU"),
    Run("schnet_recommended", "recommended", "shifted softplus"),
    Run("schnet_irelu_recommended", "recommended", "IReLU"),
]


def ocp_dc(*arguments: object) -> None:
    command = ["ocp-dc", *map(str, arguments)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)


def training_command(run: Run, out: Path) -> list[str]:
    data = out / "data"
    # The run's name as --timestamp-id: started again, the host continues from that run's checkpoint.
    return [
        *("ocp-dc", "train", "--config-yml", str(CONFIGS / f"{run.config}.yml")),
        *("--run-dir", str(out), "--timestamp-id", run.config),
        *(f"--dataset.train.src={data / 'train'}", f"--dataset.val.src={data / 'val'}", "--hide_eval_progressbar=True"),
        *SMALL,
    ]


def train(runs: list[Run], out: Path) -> None:
    """All runs, two at a time on one thread each (these models are too small to use two), with a progress bar each."""
    for run in runs:
        print(f"$ {shlex.join(training_command(run, out))}")
    print()
    bars = {run: tqdm(total=STEPS, desc=f"{run.protocol}, {run.activation}", unit="step") for run in runs}
    waiting, running = list(runs), {}
    while waiting or running:
        while waiting and len(running) < 2:
            run = waiting.pop(0)
            log = (out / f"{run.config}.log").open("w")
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = training_command(run, out)
            running[run] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        time.sleep(1)
        for run, process in list(running.items()):
            bars[run].update(last_step(run, out) - bars[run].n)
            if process.poll() is not None:
                del running[run]
                if process.returncode:
                    for other in running.values():
                        other.terminate()
                    sys.exit(f"\ntraining {run.config} failed, see {out / run.config}.log")
    for bar in bars.values():
        bar.close()


def last_step(run: Run, out: Path) -> int:
    records = read_records(run, out)
    return records[-1]["step"] if records else 0


def read_records(run: Run, out: Path) -> list[dict]:
    path = run.folder("logs/tensorboard", out) / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []


def print_table(out: Path) -> None:
    header = ("protocol", "activation", "energy MAE", "force MAE", "EFwT")
    print(f"\nEthanol, PBE, 800 conformations, {EPOCHS} epochs; errors on 100 test conformations")
    print("{:<18}{:<18}{:>14}{:>14}{:>8}".format(*header))
    print("{:<36}{:>14}{:>14}{:>8}".format("", "kcal/mol", "kcal/mol/Å", "%"))
    for run in RUNS:
        errors = json.loads((run.folder("checkpoints", out) / "result.json").read_text())
        energy, force, efwt = errors["energy_mae"], errors["force_mae"], 100 * errors["efwt"]
        print(f"{run.protocol:<18}{run.activation:<18}{energy:>14,.3f}{force:>14,.3f}{efwt:>8.1f}")
    print(
        "\nThe paper's protocol learns total energies (-97,000 kcal/mol) from zero at a constant rate and needs its\n"
        f"125,000 steps for it; here it has {STEPS:,}. The recommended one removes the mean energy and decays the rate."
    )


def plot_learning_curves(out: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for run in RUNS:
        records = [record for record in read_records(run, out) if record["split"] == "val"]
        for panel, metric in zip(panels, ("energy_mae", "forces_mae"), strict=True):
            label = f"{run.protocol}, {run.activation}"
            panel.plot([r["step"] for r in records], [r[metric] for r in records], label=label)
    for panel, quantity, unit in zip(panels, ("energy", "force"), ("kcal/mol", "kcal/mol/Å"), strict=True):
        panel.set(xlabel="step", ylabel=f"validation {quantity} MAE ({unit})", yscale="log")
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    path = out / "learning_curves.png"
    figure.savefig(path, dpi=130)
    return path


def main(out: Path) -> None:
    started = time.monotonic()
    if not (out / "data").exists():
        ocp_dc("md17", "convert", "sample", out / "data", *SPLIT)
    unfinished = [run for run in RUNS if not (run.folder("checkpoints", out) / "result.json").exists()]
    train(unfinished, out)
    for run in unfinished:
        checkpoint = run.folder("checkpoints", out) / "checkpoint.pt"
        ocp_dc("evaluate", "--checkpoint", checkpoint, "--data", out / "data" / "test", "--batch-size", 20)
    print_table(out)
    print(f"\nlearning curves: {plot_learning_curves(out)}")
    print(f"everything is in {out}; remove it to start over. {(time.monotonic() - started) / 60:.1f} min in all")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
