"""Every key of a config: its type, its range, and what it is for.

Nothing heavy is imported here. What only fairchem and PyTorch know (models of others, parameters of schedulers and
optimizers beyond those listed) is checked by the trainer.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

TRAINERS = ("dc_forces", "ocp_dc.trainers.DerivativeConstrainedTrainer")
NUMBER_AS_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def number_of_text(value: Any) -> Any:
    """YAML takes 1e-4, without a point, for text: the number it is meant to be. Other values as they are."""
    return float(value) if isinstance(value, str) and NUMBER_AS_TEXT.match(value) else value


def whole_of_text(value: Any) -> Any:
    """As :func:`number_of_text`, whole where it is."""
    value = number_of_text(value)
    return int(value) if isinstance(value, float) and math.isfinite(value) and value == int(value) else value


def flag_of_text(value: Any) -> Any:
    """On the command line, true and false are text: what they are meant to be. Other values as they are."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(flag_of_text)]
_REAL, _WHOLE = BeforeValidator(number_of_text), BeforeValidator(whole_of_text)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _REAL]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _REAL]
UpToOne = Annotated[float, Field(gt=0, le=1), _REAL]
BelowOne = Annotated[float, Field(gt=0, lt=1), _REAL]
Cutoff = Annotated[float, Field(gt=0, le=100), _REAL]
# float32 keeps labels that are divided by it
Constant = Annotated[float, Field(ge=1e-30, le=1e30), _REAL]
Whole = Annotated[int, _WHOLE]
Count = Annotated[int, Field(ge=1), _WHOLE]
CountOrNone = Annotated[int, Field(ge=0), _WHOLE]
TwoOrMore = Annotated[int, Field(ge=2), _WHOLE]
Seed = Annotated[int, Field(ge=0, lt=2**32), _WHOLE]
AnyNumber = Annotated[Any, _WHOLE]


class Section(BaseModel):
    """A mapping of a config; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Task(Section):
    """How labels are scaled, and what fairchem's tasks read."""

    label_rescaling: Literal["auto", "mean_force", "none"] | Constant | None = Field(
        None,
        description="C that divides energies and forces: `auto` (Eq. 4), `mean_force` (the mean absolute force "
        "component), a number, or `none`",
    )
    reference_energy: Literal["none", "mean", "element"] | None = Field(
        None, description="subtracted before: the mean energy, or least squares per element, in float64"
    )
    weights_only: Flag | None = Field(None, description="start anew from a checkpoint's weights (`--weights-only`)")
    dataset: str | None = Field(None, description="fairchem's name of a kind of data")
    prediction_dtype: Literal["float16", "float32", "float64"] | None = Field(
        None, description="fairchem's; this trainer's predictions are float64"
    )
    set_deterministic_scatter: Flag | None = Field(None, description="deterministic sums on a GPU, in relaxations")
    strict_load: Flag | None = Field(None, description="a checkpoint must have every weight of the model")
    eval_relaxations: Flag | None = Field(None, description="relaxations, as fairchem has them, like those below")
    num_relaxation_batches: Count | None = Field(None, description="fairchem's relaxations")
    relax_cell: Flag | None = Field(None, description="fairchem's relaxations")
    relax_dataset: dict[str, Any] | None = Field(None, description="fairchem's relaxations")
    relax_opt: dict[str, Any] | None = Field(None, description="fairchem's relaxations")
    relax_volume: Flag | None = Field(None, description="fairchem's relaxations")
    relaxation_fmax: Positive | None = Field(None, description="eV/Å")
    relaxation_steps: Count | None = Field(None, description="fairchem's relaxations")
    save_full_traj: Flag | None = Field(None, description="fairchem's relaxations")
    write_pos: Flag | None = Field(None, description="fairchem's relaxations")


class Optim(Section):
    """The optimizer, its rate, and the length of training. Keys of ``scheduler`` come beside these."""

    # keys of the scheduler are looked up in SCHEDULERS
    model_config = ConfigDict(extra="allow")

    batch_size: Count | None = Field(None, description="conformations in a step, of each process")
    eval_batch_size: Count | None = Field(None, description="default: as many as are fast")
    num_workers: CountOrNone | None = Field(None, description="processes that load data; `md17_packed` needs none")
    load_balancing: Literal["atoms", "neighbors"] | None = Field(
        None, description="several processes get as many of these each"
    )
    load_balancing_on_error: Literal["raise", "warn_and_balance", "warn_and_no_balance"] | None = Field(
        None, description="of data without the sizes that this needs"
    )
    optimizer: (
        Literal["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
        | None
    ) = Field(None, description="of torch.optim; default AdamW")
    optimizer_params: dict[str, AnyNumber] | None = Field(None, description="its other parameters, such as `amsgrad`")
    weight_decay: NotNegative | None = Field(None, description="of the optimizer")
    lr_initial: Positive = Field(description="learning rate")
    scheduler: str | None = Field(
        None,
        description="of torch.optim.lr_scheduler, with its parameters as further keys; `Null` for none. By default "
        "CosineAnnealingLR and OneCycleLR (a warm-up to `lr_initial` before) end with the run. Where it replaces "
        "another, those of that one's parameters that it does not take are left out",
    )
    lr_gamma: Positive | None = Field(None, description="fairchem's LambdaLR: factor at each milestone")
    lr_milestones: list[CountOrNone] | None = Field(None, description="fairchem's LambdaLR: steps")
    warmup_factor: UpToOne | None = Field(None, description="fairchem's LambdaLR")
    warmup_steps: CountOrNone | None = Field(None, description="fairchem's LambdaLR")
    clip_grad_norm: Positive | None = Field(None, description="largest norm of the gradient")
    ema_decay: BelowOne | None = Field(None, description="averages weights for predictions")
    step: Literal["auto", "eager", "traced", "cuda_graph"] | None = Field(None, description="how a step is computed")
    on_nonfinite: Literal["stop", "skip", "restore"] | None = Field(
        None,
        description="of a step with NaN: end, leave it out, or take the last checkpoint's weights too",
    )
    max_epochs: Count = Field(description="how long to train")
    eval_every: Count | None = Field(None, description="steps between validations; default: an epoch")
    checkpoint_every: Whole | None = Field(None, description="steps; default: `eval_every`; 0 or less: at the end")
    load_datasets_and_model_then_exit: Flag | None = Field(None, description="for tests of fairchem")


class Output(Section):
    """What a model predicts."""

    level: Literal["system", "atom"] | None = Field(None, description="of a structure, or of each atom")
    property: str | None = Field(None, description="fairchem's, of what is stored under another name")
    shape: Count | None = Field(None, description="numbers in it")
    parent: str | None = Field(None, description="fairchem's, of a part of a tensor")
    irrep_dim: CountOrNone | None = Field(None, description="fairchem's, of a part of a tensor")
    decomposition: dict[str, Any] | None = Field(None, description="fairchem's, of a tensor")
    prediction_dtype: str | None = Field(None, description="fairchem's; this trainer's are float64")
    train_on_free_atoms: Flag | None = Field(None, description="leave fixed atoms out of the loss")
    eval_on_free_atoms: Flag | None = Field(None, description="leave fixed atoms out of errors")


class LossTerm(Section):
    """A term of the loss."""

    fn: Literal["mae", "mse", "per_atom_mae", "l2norm", "l2mae"] = Field(
        description="`mae`: absolute errors, as published; `mse`: squared, Eq. 5"
    )
    coefficient: NotNegative = Field(description="α of the energy, β of the forces")
    reduction: Literal["mean", "sum"] | None = Field(None, description="over structures, or components")


Metric = Literal[
    "mae",
    "mse",
    "rmse",
    "per_atom_mae",
    "per_atom_mse",
    "cosine_similarity",
    "magnitude_error",
    "forcesx_mae",
    "forcesx_mse",
    "forcesy_mae",
    "forcesy_mse",
    "forcesz_mae",
    "forcesz_mse",
    "energy_forces_within_threshold",
    "energy_within_threshold",
    "average_distance_within_threshold",
]


class Metrics(Section):
    """What validation reports."""

    metrics: dict[str, list[Metric]] | None = Field(None, description="names of fairchem's metrics for each output")
    primary_metric: str | None = Field(None, description="that the best checkpoint is chosen by, such as `forces_mae`")


class Transforms(Section):
    """fairchem's, of the training data."""

    normalizer: dict[str, Any] | None = Field(
        None, description="fairchem's scale of labels; not beside `task.label_rescaling`"
    )
    element_references: dict[str, Any] | None = Field(
        None, description="fairchem's; not beside `task.reference_energy`"
    )
    decompose_tensor: dict[str, Any] | None = Field(None, description="fairchem's")


class Source(Section):
    """A set of data."""

    format: str | None = Field(None, description="`md17_packed`, or one of fairchem's, such as `lmdb`")
    src: str | list[str] | None = Field(None, description="folder or file")
    key_mapping: dict[str, str] | None = Field(None, description="field of the records to output")
    transforms: Transforms | None = Field(None, description="fairchem's, see below")
    use_train_settings: Flag | None = Field(None, description="what is not set here is as in `train`; default true")
    metadata_path: str | None = Field(None, description="of structures' sizes, where it is not beside the data")
    seed: Whole | None = Field(None, description="of `sample_n`")
    first_n: Count | None = Field(None, description="only so many")
    sample_n: Count | None = Field(None, description="only so many, drawn at random")
    max_atoms: Count | None = Field(None, description="only structures of at most so many atoms")
    no_shuffle: Flag | None = Field(None, description="take `sample_n` in order")
    subset_to: list[dict[str, Any]] | None = Field(None, description="fairchem's filters by metadata")
    lin_ref: str | Flag | None = Field(None, description="fairchem's linear references")
    shard: CountOrNone | None = Field(None, description="of `total_shards`, only this one")
    total_shards: Count | None = Field(None, description="parts that the data are cut into")
    splits: dict[str, Any] | None = Field(None, description="fairchem's settings by split")
    data2train: str | None = Field(None, description="OC22: `all`, or `adslab`")
    train_on_oc20_total_energies: Flag | None = Field(None, description="OC22 with OC20's data")
    oc20_ref: str | None = Field(None, description="OC20's reference energies")
    a2g_args: dict[str, Any] | None = Field(None, description="ASE's files, read by fairchem")
    atoms_transform_args: dict[str, Any] | None = Field(None, description="ASE's files, read by fairchem")
    ase_read_args: dict[str, Any] | None = Field(None, description="ASE's files, read by fairchem")
    connect_args: dict[str, Any] | None = Field(None, description="ASE's databases, read by fairchem")
    select_args: dict[str, Any] | None = Field(None, description="ASE's databases, read by fairchem")
    pattern: str | None = Field(None, description="ASE's files, read by fairchem: their names")
    index_file: str | None = Field(None, description="ASE's files, read by fairchem: a list of them")
    keep_in_memory: Flag | None = Field(None, description="ASE's files, read by fairchem")
    include_relaxed_energy: Flag | None = Field(None, description="ASE's files, read by fairchem")
    use_tqdm: Flag | None = Field(None, description="ASE's files, read by fairchem")


class Dataset(Section):
    """The sets."""

    train: Source | None = Field(None, description="see below")
    val: Source | None = Field(None, description="as `train`")
    test: Source | None = Field(None, description="as `train`")
    relax: Source | None = Field(None, description="fairchem's relaxations")
    train_split_settings: dict[str, Any] | None = Field(None, description="fairchem's settings by split")
    val_split_settings: dict[str, Any] | None = Field(None, description="fairchem's settings by split")
    test_split_settings: dict[str, Any] | None = Field(None, description="fairchem's settings by split")


class Logger(Section):
    """Where fairchem logs to."""

    name: Literal["tensorboard", "wandb"] = Field(description="of the service")
    project: str | None = Field(None, description="of wandb")
    entity: str | None = Field(None, description="of wandb")
    group: str | None = Field(None, description="of wandb")
    watch: Whole | None = Field(None, description="of wandb: steps between looks at the model")
    log_weight_table: Whole | None = Field(None, description="of wandb: steps between tables of weights")


class Flags(Section):
    """What fairchem makes of its flags."""

    mode: Literal["train", "validate", "predict", "run-relaxations"] | None = Field(None, description="the flag's")
    identifier: str | None = Field(None, description="the flag's")
    timestamp_id: str | None = Field(None, description="the flag's")
    seed: Seed | None = Field(None, description="the flag's")
    is_debug: Flag | None = Field(None, description="the flag's")
    run_dir: Any = Field(None, description="the flag's")
    print_every: Count | None = Field(None, description="the flag's")
    amp: Flag | None = Field(None, description="the flag's")
    checkpoint: str | None = Field(None, description="the flag's")
    cpu: Flag | None = Field(None, description="the flag's")
    submit: Flag | None = Field(None, description="the flag's")
    summit: Flag | None = Field(None, description="the flag's")
    world_size: Count | None = Field(None, description="the flag's")
    distributed_backend: Literal["gloo", "nccl"] | None = Field(None, description="the flag's")
    gp_gpus: Count | None = Field(None, description="the flag's")
    timeout: Count | None = Field(None, description="the flag's")
    hide_eval_progressbar: Flag | None = Field(None, description="the flag's")


class Config(Flags):
    """A whole config."""

    trainer: str | None = Field(None, description=f"`{TRAINERS[1]}`, or `{TRAINERS[0]}`: this package's")
    logger: Literal["tensorboard", "wandb"] | Logger | None = Field(
        None, description="where fairchem logs to, beside `metrics.jsonl`"
    )
    dataset: Dataset | None = Field(None, description="see below")
    task: Task | None = Field(None, description="see below")
    model: dict[str, Any] = Field(description="see below")
    outputs: dict[str, Output] = Field(description="see below")
    loss_functions: list[dict[str, LossTerm]] = Field(description="see below")
    evaluation_metrics: Metrics | None = Field(None, description="see below")
    optim: Optim = Field(description="see below")
    slurm: dict[str, Any] | None = Field(None, description="further options of sbatch, with underscores")


# parameters of torch's schedulers that a config can give
SCHEDULERS: dict[str, set[str]] = {
    "Null": set(),
    "LambdaLR": set(),
    "ConstantLR": {"factor", "total_iters"},
    "CosineAnnealingLR": {"T_max", "eta_min"},
    "CosineAnnealingWarmRestarts": {"T_0", "T_mult", "eta_min"},
    "CyclicLR": {"base_lr", "max_lr", "step_size_up", "step_size_down", "mode", "gamma", "scale_mode"}
    | {"cycle_momentum", "base_momentum", "max_momentum"},
    "ExponentialLR": {"gamma"},
    "LinearLR": {"start_factor", "end_factor", "total_iters"},
    "MultiStepLR": {"milestones", "gamma"},
    "OneCycleLR": {"max_lr", "total_steps", "epochs", "steps_per_epoch", "pct_start", "anneal_strategy"}
    | {"cycle_momentum", "base_momentum", "max_momentum", "div_factor", "final_div_factor", "three_phase"},
    "PolynomialLR": {"total_iters", "power"},
    "ReduceLROnPlateau": {"mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"},
    "StepLR": {"step_size", "gamma"},
}
OF_ALL_SCHEDULERS = {"last_epoch", "verbose"}

# long options of sbatch that fairchem's flags do not set, with underscores; hyphens are taken too
SBATCH = (
    {"account", "acctg_freq", "array", "array_parallelism", "batch", "bb", "begin", "chdir", "cluster_constraint"}
    | {"clusters", "comment", "constraint", "container", "contiguous", "core_spec", "cores_per_socket", "cpu_freq"}
    | {"cpus_per_gpu", "cpus_per_task", "deadline", "delay_boot", "dependency", "distribution", "error", "exclude"}
    | {"exclusive", "export", "extra_node_info", "get_user_env", "gid", "gpu_bind", "gpu_freq", "gpus", "gpus_per_node"}
    | {"gpus_per_socket", "gpus_per_task", "gres", "gres_flags", "hint", "hold", "ignore_pbs", "input", "job_name"}
    | {"kill_on_invalid_dep", "licenses", "mail_type", "mail_user", "mem", "mem_bind", "mem_per_cpu", "mem_per_gpu"}
    | {"mincpus", "network", "nice", "no_kill", "no_requeue", "nodefile", "nodelist", "nodes", "ntasks"}
    | {"ntasks_per_core", "ntasks_per_gpu", "ntasks_per_node", "ntasks_per_socket", "open_mode", "output", "overcommit"}
    | {"oversubscribe", "parsable", "partition", "power", "prefer", "priority", "profile", "propagate", "qos", "quiet"}
    | {
        "reboot",
        "requeue",
        "reservation",
        "segment",
        "signal",
        "sockets_per_node",
        "spread_job",
        "switches",
        "thread_spec",
    }
    | {"threads_per_core", "time", "time_min", "tmp", "tres_per_task", "uid", "use_min_nodes", "verbose", "wait"}
    | {"wait_all_nodes", "wckey", "wrap"}
)


# --- models ----------------------------------------------------------------------------------------------------------


class Model(Section):
    """What all models have."""

    name: str = Field(description="as it is registered")
    cutoff: Cutoff | None = Field(None, description="Å; atoms further apart share no edge")
    regress_forces: Annotated[Literal[True], BeforeValidator(flag_of_text)] | None = Field(
        None, description="this trainer learns forces"
    )
    use_pbc: Flag | None = Field(None, description="edges to periodic images; false for molecules")
    use_pbc_single: Flag | None = Field(None, description="these one structure at a time, to save memory")
    otf_graph: Flag | None = Field(None, description="edges are found anew, not taken from the data")


class Replaced(Section):
    """What the models with replaced activations have besides."""

    activation: str | None = Field(None, description="`irelu`, …, or `original`")
    activation_scope: Literal["paper", "all"] | None = Field(
        None, description="the sites that the paper replaced, or all"
    )
    denormalize: Literal["none", "batch", "all"] | None = Field(None, description="which normalization is removed")


class SchNet(Model):
    """SchNet."""

    hidden_channels: Count | None = Field(None, description="width of atoms' features")
    num_filters: Count | None = Field(None, description="width of filters")
    num_interactions: CountOrNone | None = Field(None, description="blocks")
    num_gaussians: TwoOrMore | None = Field(None, description="of distances")
    readout: Literal["sum", "add", "mean"] | None = Field(None, description="of atoms' energies")


class CGCNN(Model):
    """CGCNN."""

    atom_embedding_size: Count | None = Field(None, description="width of atoms' features")
    num_graph_conv_layers: Count | None = Field(None, description="convolutions")
    fc_feat_size: Count | None = Field(None, description="width of the head")
    num_fc_layers: Count | None = Field(None, description="layers of the head")
    num_gaussians: TwoOrMore | None = Field(None, description="of distances")
    embeddings: Literal["khot", "qmof"] | None = Field(None, description="of elements")
    max_neighbors: Count | None = Field(None, description="at most so many edges for each atom")


class DimeNetPlusPlus(Model):
    """DimeNet++."""

    hidden_channels: Count | None = Field(None, description="width of edges' features")
    out_emb_channels: Count | None = Field(None, description="width of the output blocks")
    int_emb_size: Count | None = Field(None, description="width of triplets' features")
    basis_emb_size: Count | None = Field(None, description="width of bases' features")
    num_blocks: Count | None = Field(None, description="interactions")
    num_spherical: Count | None = Field(None, description="spherical basis functions")
    num_radial: Count | None = Field(None, description="radial basis functions")
    envelope_exponent: Count | None = Field(None, description="of the smooth cutoff")
    num_before_skip: CountOrNone | None = Field(None, description="residual layers")
    num_after_skip: CountOrNone | None = Field(None, description="residual layers")
    num_output_layers: CountOrNone | None = Field(None, description="layers of the output blocks")


class ForceNet(Model):
    """ForceNet."""

    hidden_channels: Count | None = Field(None, description="width")
    decoder_hidden_channels: Count | None = Field(None, description="width of the decoder")
    num_interactions: Count | None = Field(None, description="blocks")
    feat: Literal["full", "simple"] | None = Field(None, description="of elements")
    num_freqs: Count | None = Field(None, description="of bases")
    max_n: Count | None = Field(None, description="largest degree of spherical harmonics")
    basis: str | None = Field(None, description="of edges")
    depth_mlp_edge: CountOrNone | None = Field(None, description="activations of each edge network")
    depth_mlp_node: CountOrNone | None = Field(None, description="activations of each node network")
    activation_str: str | None = Field(None, description="a name of fairchem's `Act`")
    ablation: str | None = Field(None, description="what is left out")
    decoder_type: Literal["linear", "mlp"] | None = Field(None, description="of forces")
    decoder_activation_str: str | None = Field(None, description="a name of fairchem's `Act`")
    training: Flag | None = Field(None, description="the original's, unused")
    max_neighbors: Count | None = Field(None, description="at most so many edges for each atom")
    direct_forces: Flag | None = Field(None, description="forces by the decoder, not the energy's gradient")


class GemNetT(Model):
    """GemNet-T; with ``direct_forces: false``, GemNet-dT's energy with gradient forces."""

    num_spherical: Count = Field(description="spherical basis functions")
    num_radial: Count = Field(description="radial basis functions")
    num_blocks: Count = Field(description="interactions")
    emb_size_atom: Count = Field(description="width of atoms' features")
    emb_size_edge: Count = Field(description="width of edges' features")
    emb_size_trip: Count = Field(description="width of triplets' features")
    emb_size_rbf: Count = Field(description="width of radial features")
    emb_size_cbf: Count = Field(description="width of circular features")
    emb_size_bil_trip: Count = Field(description="width after the bilinear layer")
    num_before_skip: CountOrNone = Field(description="residual layers")
    num_after_skip: CountOrNone = Field(description="residual layers")
    num_concat: CountOrNone = Field(description="residual layers")
    num_atom: CountOrNone = Field(description="residual layers of atoms")
    rbf: dict[str, Any] | None = Field(None, description="radial basis")
    envelope: dict[str, Any] | None = Field(None, description="smooth cutoff")
    cbf: dict[str, Any] | None = Field(None, description="circular basis")
    extensive: Flag | None = Field(None, description="energies are sums over atoms")
    output_init: Literal["HeOrthogonal", "zeros"] | None = Field(None, description="of the output layers")
    num_elements: Count | None = Field(None, description="that it has embeddings for")
    max_neighbors: Count | None = Field(None, description="at most so many edges for each atom")
    direct_forces: Flag | None = Field(None, description="forces by a head of their own")
    activation: str | None = Field(None, description="of fairchem's, or what takes its place")
    scale_file: str | dict[str, Positive] | None = Field(None, description="factors, or a JSON file of them")


class SchNetIReLU(Replaced, SchNet):
    """SchNet with replaced activations."""


class CGCNNIReLU(Replaced, CGCNN):
    """CGCNN with replaced activations."""


class DimeNetPlusPlusIReLU(Replaced, DimeNetPlusPlus):
    """DimeNet++ with replaced activations."""

    conservative: Flag | None = Field(None, description="forces are the full gradient; false is fairchem's")


class ForceNetIReLU(Replaced, ForceNet):
    """ForceNet with replaced activations."""

    replaced_by_position: Flag | None = Field(None, description="as in the published runs")


class GemNetTIReLU(Replaced, GemNetT):
    """GemNet-T with replaced activations."""


MODELS: dict[str, type[Model]] = {
    "schnet": SchNet,
    "schnet_irelu": SchNetIReLU,
    "cgcnn": CGCNN,
    "cgcnn_irelu": CGCNNIReLU,
    "dimenetplusplus": DimeNetPlusPlus,
    "dimenetplusplus_irelu": DimeNetPlusPlusIReLU,
    "forcenet": ForceNet,
    "forcenet_irelu": ForceNetIReLU,
    "gemnet_t": GemNetT,
    "gemnet_t_irelu": GemNetTIReLU,
}

# by their dotted names; those of outputs, losses and sources have the user's own names in between
SECTIONS: dict[str, type[Section]] = {
    "": Config,
    "task": Task,
    "optim": Optim,
    "dataset": Dataset,
    "evaluation_metrics": Metrics,
    "logger": Logger,
}
NAMED_SECTIONS: dict[str, type[Section]] = {
    r"outputs\.[^.]+": Output,
    r"loss_functions\.\d+\.[^.]+": LossTerm,
    r"dataset\.(train|val|test|relax)": Source,
    r"dataset\.(\w+\.)?transforms": Transforms,
}
