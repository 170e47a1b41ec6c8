import pytest

from ocp_dc.errors import TrainingDivergedError
from ocp_dc.launch import run_fairchem
from ocp_dc.trainers.metrics_log import read_metrics

# deep and wide enough for IReLU in all sites to overflow (docs/stability.md)
SETTINGS = {
    "dimenetplusplus_irelu": ["hidden_channels=64", "out_emb_channels=64", "num_blocks=3"],
    "gemnet_t_irelu": ["emb_size_atom=64", "emb_size_edge=64", "num_spherical=3", "num_radial=32"],
}
RECOMMENDED = [
    "--task.reference_energy=mean",
    "--optim.lr_initial=1.0e-3",
    "--optim.scheduler=CosineAnnealingLR",
    "--optim.batch_size=5",
    "--optim.max_epochs=1",
    "--optim.eval_every=1000",
    "--optim.checkpoint_every=-1",
]


@pytest.fixture(params=SETTINGS)
def train_in_all_sites(train_arguments, request):
    def train(activation: str) -> None:
        model = ["activation_scope=all", f"activation={activation}", *SETTINGS[request.param]]
        run_fairchem(
            "train", train_arguments(request.param, *RECOMMENDED, *(f"--model.{setting}" for setting in model))
        )

    return train


def test_irelu_in_all_sites_diverges(train_in_all_sites):
    with pytest.raises(TrainingDivergedError):
        train_in_all_sites("irelu")


def test_bounded_irelu_in_all_sites_trains(train_in_all_sites, tmp_path):
    train_in_all_sites("bounded_irelu")
    (log,) = tmp_path.glob("logs/tensorboard/*/metrics.jsonl")
    losses = [record["loss"] for record in read_metrics(log) if record["split"] == "train"]
    assert len(losses) == 20
    assert max(losses) < 2 * losses[0]
