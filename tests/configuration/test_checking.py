"""Every key is checked for its type and range, and all problems are said at once."""

import copy
from typing import get_args

import pytest
import torch.optim.lr_scheduler
from fairchem.core.common.registry import registry
from fairchem.core.modules import evaluator
from pydantic import ValidationError

import ocp_dc.trainers  # noqa: F401  registers the models
from ocp_dc.config_files import config_file, config_names
from ocp_dc.configuration.checking import check_config, check_sections
from ocp_dc.configuration.reading import read_config
from ocp_dc.configuration.schema import (
    MODELS,
    NAMED_SECTIONS,
    OF_ALL_SCHEDULERS,
    SCHEDULERS,
    SECTIONS,
    TRAINERS,
    Dataset,
    LossTerm,
    Metric,
    Optim,
    Task,
)
from ocp_dc.errors import InputError
from ocp_dc.trainers.config_keys import _constructor_settings

METRICS = get_args(Metric)


@pytest.fixture(scope="module")
def sound():
    return {**read_config(config_file("md17/schnet_dc")).content, "mode": "train"}


def changed(config, key, value):
    """A copy with a dotted key set, or removed where the value is the ellipsis."""
    config = copy.deepcopy(config)
    *sections, name = key.split(".")
    inner = config
    for section in sections:
        inner = inner[int(section)] if isinstance(inner, list) else inner.setdefault(section, {})
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return config


@pytest.mark.parametrize("name", config_names())
def test_shipped_configs_are_sound_and_stay_as_they_are(name):
    config = read_config(config_file(name)).content
    assert check_config(config) == config


@pytest.mark.parametrize("name", MODELS)
def test_the_keys_of_models_are_those_of_their_constructors(name):
    settings, complete = _constructor_settings(registry.get_model_class(name))
    assert complete
    # what DimeNet++'s outer class does not hand on
    unused = {"act", "out_channels"} if "dimenet" in name else set()
    assert MODELS[name].model_fields.keys() - {"name"} == settings - unused


@pytest.mark.parametrize("name", METRICS)
def test_the_names_of_metrics_are_those_of_fairchem(name):
    assert getattr(evaluator, name).__module__ == evaluator.__name__


@pytest.mark.parametrize("name", sorted(SCHEDULERS.keys() - {"Null", "LambdaLR"}))
def test_the_keys_of_schedulers_are_those_of_torch(name):
    scheduler = getattr(torch.optim.lr_scheduler, name)
    taken = set(scheduler.__init__.__code__.co_varnames[: scheduler.__init__.__code__.co_argcount])
    assert SCHEDULERS[name] == taken - {"self", "optimizer", "scale_fn"} - OF_ALL_SCHEDULERS


@pytest.mark.parametrize(
    "section",
    dict.fromkeys([*SECTIONS.values(), *NAMED_SECTIONS.values(), *MODELS.values()]),
    ids=lambda section: section.__name__,
)
def test_what_may_be_left_out_may_be_null(section):
    refused = set()
    for name in section.model_fields:
        try:
            section.model_validate({name: None})
        except ValidationError as error:
            refused |= {name for problem in error.errors() if problem["loc"][0] == name}
    assert refused == {name for name, field in section.model_fields.items() if field.is_required()} - {"run_dir"}


def test_numbers_that_yaml_takes_for_text_are_numbers(sound):
    config = changed(changed(sound, "optim.lr_initial", "1e-4"), "optim.max_epochs", "1e1")
    config = changed(config, "optim.optimizer_params", {"eps": "1e-8", "amsgrad": True})
    optim = check_config(config)["optim"]
    assert (optim["lr_initial"], optim["max_epochs"]) == (1e-4, 10)
    assert isinstance(optim["max_epochs"], int)
    assert optim["optimizer_params"] == {"eps": 1e-8, "amsgrad": True}


def test_true_and_false_of_the_command_line_are_flags(sound):
    config = changed(changed(sound, "model.use_pbc", "false"), "outputs.forces.eval_on_free_atoms", "True")
    checked = check_config(config)
    assert checked["model"]["use_pbc"] is False
    assert checked["outputs"]["forces"]["eval_on_free_atoms"] is True


# key, value, what is said, and of which key where that is another
MISTAKES = [
    ("optim.batch_size", 0, "optim.batch_size is 0; it must be a number of at least 1"),
    ("optim.batch_size", 2.5, "optim.batch_size is 2.5; it must be a whole number"),
    ("optim.batch_size", True, "optim.batch_size is True; it must be a whole number"),
    ("optim.batch_size", "many", "optim.batch_size is 'many'; it must be a whole number"),
    ("optim.batch_size", float("inf"), "optim.batch_size is inf; it must be a whole number"),
    ("optim.max_epochs", -3, "optim.max_epochs is -3; it must be a number of at least 1"),
    ("optim.max_epochs", "many", "optim.max_epochs is 'many'; it must be a whole number"),
    ("optim.max_epochs", ..., "optim.max_epochs is missing"),
    ("optim.lr_initial", -1, "optim.lr_initial is -1; it must be a number above 0"),
    ("optim.lr_initial", "abc", "optim.lr_initial is 'abc'; it must be a number"),
    ("optim.lr_initial", float("nan"), "optim.lr_initial is nan; it must be a finite number"),
    ("optim.lr_initial", [1], "optim.lr_initial is [1]; it must be a number"),
    ("optim.lr_initial", float("inf"), "optim.lr_initial is inf; it must be a finite number"),
    ("optim.lr_inital", 1, "config key optim.lr_inital is unknown; did you mean lr_initial?"),
    ("optim.clip_grad_norm", -1, "optim.clip_grad_norm is -1; it must be a number above 0"),
    ("optim.ema_decay", 2, "optim.ema_decay is 2; it must be a number below 1"),
    ("optim.eval_every", 0, "optim.eval_every is 0; it must be a number of at least 1"),
    ("optim.num_workers", -2, "optim.num_workers is -2; it must be a number of at least 0"),
    ("optim.weight_decay", -0.1, "optim.weight_decay is -0.1; it must be a number of at least 0"),
    ("optim.weight_decay", float("inf"), "optim.weight_decay is inf; it must be a finite number"),
    (
        "optim.optimizer",
        "Adamm",
        "optim.optimizer is 'Adamm'; it must be ASGD, Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, "
        "Rprop or SGD",
    ),
    ("optim.scheduler", "Optimizer", f"optim.scheduler is 'Optimizer'; it must be one of {', '.join(SCHEDULERS)}"),
    ("optim.last_epoch", 3, "config key optim.last_epoch is unknown; did you mean max_epochs?"),
    ("optim.t_max", 3, f"config key optim.t_max is unknown; known: {', '.join(sorted(Optim.model_fields))}"),
    (
        "optim.T_max",
        3,
        "config key optim.T_max is a parameter of CosineAnnealingLR, and optim.scheduler is 'Null': give it with that "
        "scheduler, or remove it",
    ),
    ("optim.step", "compiled", "optim.step is 'compiled'; it must be auto, eager, traced or cuda_graph"),
    (
        "task.label_rescaling",
        1e300,
        "task.label_rescaling is 1e+300; it must be auto, mean_force or none or a number of at most 1e+30",
    ),
    (
        "task.label_rescaling",
        -1,
        "task.label_rescaling is -1; it must be auto, mean_force or none or a number of at least 1e-30",
    ),
    ("task.label_rescaling", "many", "task.label_rescaling is 'many'; it must be auto, mean_force or none or a number"),
    ("task.reference_energy", "median", "task.reference_energy is 'median'; it must be none, mean or element"),
    ("task.trainer", 1, f"config key task.trainer is unknown; known: {', '.join(sorted(Task.model_fields))}"),
    ("model.cutoff", -1, "model.cutoff is -1; it must be a number above 0"),
    ("model.hidden_channels", 0, "model.hidden_channels is 0; it must be a number of at least 1"),
    ("model.hidden_channels", "abc", "model.hidden_channels is 'abc'; it must be a whole number"),
    ("model.readout", "banana", "model.readout is 'banana'; it must be sum, add or mean"),
    ("model.regress_forces", False, "model.regress_forces is False; it must be True"),
    ("model.activaton", "irelu", "config key model.activaton is unknown; did you mean activation?"),
    ("model.name", ..., "model.name is missing"),
    ("model", "schnet", "model is 'schnet'; it must be a mapping"),
    (
        "loss_functions.0.energy.coefficient",
        -30,
        "loss_functions.0.energy.coefficient is -30; it must be a number of at least 0",
    ),
    (
        "loss_functions.0.energy.fn",
        "l3",
        "loss_functions.0.energy.fn is 'l3'; it must be mae, mse, per_atom_mae, l2norm or l2mae",
    ),
    (
        "loss_functions.0.enrgy",
        {"fn": "mae", "coefficient": 1},
        "loss_functions.0.enrgy: enrgy is none of outputs, which are energy, forces",
    ),
    (
        "loss_functions.0.energy.weight",
        1,
        f"config key loss_functions.0.energy.weight is unknown; known: {', '.join(sorted(LossTerm.model_fields))}",
    ),
    ("loss_functions", ..., "loss_functions is missing"),
    ("loss_functions", {"energy": {}}, "loss_functions is {'energy': {}}; it must be a list"),
    (
        "outputs.forces.train_on_free_atoms",
        "yes",
        "outputs.forces.train_on_free_atoms is 'yes'; it must be true or false",
    ),
    ("outputs.energy.levle", "system", "config key outputs.energy.levle is unknown; did you mean level?"),
    ("outputs", ..., "outputs is missing"),
    ("outputs", 3, "outputs is 3; it must be a mapping"),
    ("dataset.trian", {"src": "x"}, "config key dataset.trian is unknown; did you mean train?"),
    ("dataset.val.key_maping", {}, "config key dataset.val.key_maping is unknown; did you mean key_mapping?"),
    ("dataset.val.key_mapping", 3, "dataset.val.key_mapping is 3; it must be a mapping"),
    ("dataset.val.format", 3, "dataset.val.format is 3; it must be text"),
    (
        "dataset",
        {"src": "x"},
        f"config key dataset.src is unknown; known: {', '.join(sorted(Dataset.model_fields))}",
        "dataset.src",
    ),
    ("dataset.train.src", ..., "dataset.train.src is missing: to train takes data, --dataset.train.src=FOLDER"),
    (
        "dataset.train.transforms",
        {"normaliser": {}},
        "config key dataset.train.transforms.normaliser is unknown; did you mean normalizer?",
        "dataset.train.transforms.normaliser",
    ),
    (
        "dataset.train.transforms",
        {"normalizer": {}},
        "dataset.train.transforms.normalizer and task.label_rescaling both scale the labels: remove one of them",
        "dataset.train.transforms.normalizer",
    ),
    (
        "evaluation_metrics.primary_metric",
        "force_mae",
        "evaluation_metrics.primary_metric is 'force_mae'; it must be one of those under metrics: energy_mae, "
        "forces_mae",
    ),
    (
        "evaluation_metrics.primary_metrics",
        "forces_mae",
        "config key evaluation_metrics.primary_metrics is unknown; did you mean primary_metric?",
    ),
    (
        "evaluation_metrics.metrics.energy",
        ["mea"],
        f"evaluation_metrics.metrics.energy.0 is 'mea'; it must be {', '.join(METRICS[:-1])} or {METRICS[-1]}",
        "evaluation_metrics.metrics.energy.0",
    ),
    ("evaluation_metrics.metrics.energy", 3, "evaluation_metrics.metrics.energy is 3; it must be a list"),
    ("slurm.partitoin", "gpu", "config key slurm.partitoin is unknown; did you mean partition?"),
    ("logger", ..., "logger is missing: set it to tensorboard, or to wandb where that is installed"),
    ("logger", "tensorbored", "logger is 'tensorbored'; it must be tensorboard or wandb or a mapping of keys"),
    (
        "logger",
        {"name": "wandb", "projct": "water"},
        "config key logger.projct is unknown; did you mean project?",
        "logger.projct",
    ),
    (
        "trainer",
        ...,
        f"trainer is not set, and only this package's reads task.label_rescaling: set it to {TRAINERS[1]}",
    ),
    (
        "trainer",
        "ocp",
        f"trainer is 'ocp', and only this package's reads task.label_rescaling: set it to {TRAINERS[1]}",
    ),
    ("optm", {"batch_size": 3}, "config key optm is unknown; did you mean optim?"),
    ("lr_initial", 3, "config key lr_initial is unknown; did you mean optim.lr_initial?"),
    ("seed", -1, "seed is -1; it must be a number of at least 0"),
    ("seed", 2**32, "seed is 4294967296; it must be a number below 4294967296"),
    ("seed", 10**30, "seed is 1000000000000000000000000000000; it must be a number below 4294967296"),
]


class Somewhere(dict):
    """A place for each key."""

    def __contains__(self, key):
        return True

    def __missing__(self, key):
        return f"at {key}"


@pytest.mark.parametrize(
    ("key", "value", "message", "place"),
    [row if len(row) == 4 else (*row, row[0]) for row in MISTAKES],
    ids=[f"{key}={value}" for key, value, *_ in MISTAKES],
)
def test_each_mistake_is_named(sound, key, value, message, place):
    with pytest.raises(InputError) as error:
        check_config(changed(sound, key, value), Somewhere(any="where"))
    assert str(error.value) == f"{message} (at {place})"


def test_all_are_said_at_once_each_with_its_place(sound):
    config = changed(changed(sound, "optim.batch_size", 0), "model.cutof", 3)
    with pytest.raises(InputError) as error:
        check_config(config, {"optim.batch_size": "own.yml:7"})
    assert str(error.value).splitlines() == [
        "2 problems in the config:",
        "  optim.batch_size is 0; it must be a number of at least 1 (own.yml:7)",
        "  config key model.cutof is unknown; did you mean cutoff?",
    ]


def test_an_output_that_is_learned_is_missing(sound):
    with pytest.raises(InputError) as error:
        check_config(changed(sound, "outputs.energy", ...), {"outputs": "own.yml:9"})
    assert str(error.value).splitlines() == [
        "2 problems in the config:",
        "  outputs has no energy: this trainer learns energy and forces (own.yml:9)",
        "  loss_functions.0.energy: energy is none of outputs, which are forces",
    ]


@pytest.mark.parametrize(("mode", "split"), [("validate", "val"), ("predict", "test")])
def test_each_mode_takes_its_own_data(sound, mode, split):
    config = {**changed(sound, f"dataset.{split}", {}), "mode": mode, "checkpoint": "best.pt"}
    with pytest.raises(
        InputError, match=f"^dataset.{split}.src is missing: to {mode} takes data, --dataset.{split}.src="
    ):
        check_config(config)
    with pytest.raises(InputError, match=rf"dataset\.src is unknown(?s:.*)dataset\.{split}\.src is missing"):
        check_config({**config, "dataset": {"src": "x"}})
    config = changed(config, f"dataset.{split}.src", "x")
    assert check_config(config) == config


def test_predicting_takes_a_checkpoint(sound):
    config = {**changed(sound, "dataset.test", {"src": "x"}), "mode": "predict"}
    with pytest.raises(InputError, match=r"^predicting takes a trained model: --checkpoint FILE \(own\.yml:3\)$"):
        check_config(config, {"checkpoint": "own.yml:3"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("evaluation_metrics", {"metrics": {"energy": ["mae"]}}),
        ("evaluation_metrics", {"primary_metric": "energy_mae"}),
        ("optim", {"scheduler": "LambdaLR", "lr_gamma": 0.5, "lr_milestones": [5], "lr_initial": 0.5, "max_epochs": 1}),
        ("logger", {"name": "tensorboard"}),
        ("logger", {"name": "wandb", "project": "water"}),
        ("mode", "run-relaxations"),
        ("distributed_backend", "gloo"),
        ("distributed_backend", "nccl"),
        ("seed", 0),
        ("seed", 2**32 - 1),
        ("slurm", {"mem-per-cpu": "2G", "mem_per_gpu": "20G"}),
        ("optim", {"scheduler": "StepLR", "step_size": 3, "last_epoch": 5, "lr_initial": 0.5, "max_epochs": 1}),
    ],
)
def test_what_is_sound_stays_as_it_is(sound, key, value):
    config = changed(sound, key, value)
    assert check_config(config) == config


def test_what_scales_labels_and_who_reads_it(sound):
    transforms = "dataset.train.transforms"
    references = changed(sound, "task.reference_energy", "mean")
    with pytest.raises(InputError, match=r"transforms\.element_references and task\.reference_energy both scale"):
        check_config(
            changed(changed(references, "task.label_rescaling", "none"), transforms, {"element_references": {}})
        )
    theirs = changed(changed(sound, "task.label_rescaling", "none"), transforms, {"normalizer": {}})
    assert check_config(theirs) == theirs
    stock = changed(theirs, "trainer", "ocp")
    assert check_config(stock) == stock
    with pytest.raises(InputError, match=r"only this package's reads optim\.step"):
        check_config(changed(stock, "optim.step", "eager"))


def test_long_values_are_cut(sound):
    for length, shown in ((78, f"'{78 * 'x'}'"), (79, f"'{79 * 'x'}…")):
        with pytest.raises(InputError) as error:
            check_config(changed(sound, "optim.max_epochs", length * "x"))
        assert str(error.value) == f"optim.max_epochs is {shown}; it must be a whole number"


def test_a_trainer_may_lack_what_only_training_needs(sound):
    names = ("task", "model", "outputs", "dataset", "loss_functions")
    sections = {name: sound[name] for name in names} | {"optim": {"batch_size": 3}}
    assert check_sections(sections) == sections
    with pytest.raises(InputError, match=r"optim\.batch_size is 0"):
        check_sections({**sections, "optim": {"batch_size": 0}})
    with pytest.raises(InputError, match="both scale the labels"):
        check_sections(changed(sections, "dataset.train.transforms", {"normalizer": {}}))
    alone = {**sections, "dataset": {"src": "x", "format": "lmdb"}}
    before = copy.deepcopy(alone)
    assert check_sections(alone) == alone == before
    with pytest.raises(InputError, match="both scale the labels"):
        check_sections(changed(alone, "dataset.transforms", {"normalizer": {}}))
    assert check_sections({**sections, "model": {}})["model"] == {}
    with pytest.raises(InputError, match=r"config key dataset\.scr is unknown; did you mean src"):
        check_sections({**alone, "dataset": {"scr": "x"}})


def test_models_of_others_are_left_to_the_trainer(sound):
    config = changed(sound, "model", {"name": "painn", "anything": 3})
    assert check_config(config) == config
