"""Whatever stands on the command line or in a config: it is taken, or refused in words."""

import contextlib

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from ocp_dc.config_files import config_file
from ocp_dc.configuration.arguments import checked_arguments
from ocp_dc.configuration.checking import check_config
from ocp_dc.configuration.reading import read_config
from ocp_dc.configuration.schema import MODELS, NAMED_SECTIONS, SECTIONS
from ocp_dc.errors import InputError

SOUND = read_config(config_file("md17/schnet_dc")).content
FIELDS = sorted(
    {name for of in (*SECTIONS.values(), *NAMED_SECTIONS.values(), *MODELS.values()) for name in of.model_fields}
)
WORDS = some.sampled_from([*FIELDS, "train", "energy", "forces", "0", "", "nmae", "\x1b[31m", "größe"])
KEYS = some.lists(WORDS, min_size=1, max_size=4).map(".".join)
TEXTS = some.one_of(
    some.text(max_size=8),
    some.sampled_from(
        ["1e-4", "-1", "0", "2.5", "nan", "inf", "True", "None", "[1]", "{'a': 1}", "{}", "auto", "none", "1e999"]
    ),
)
LEAVES = (
    some.none() | some.booleans() | some.integers() | some.floats(allow_subnormal=False) | some.text(max_size=5) | WORDS
)
VALUES = some.recursive(
    LEAVES, lambda of: some.lists(of, max_size=3) | some.dictionaries(WORDS, of, max_size=3), max_leaves=5
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.lists(some.builds("--{}={}".format, KEYS, TEXTS) | some.text(min_size=1, max_size=12), min_size=1, max_size=3)
)
@example(["--optim=3", "--optim.lr_initial=1"])
@example(["--model.name.x=1"])
def test_overrides(tmp_path, words):
    with contextlib.suppress(InputError, SystemExit):
        checked_arguments("train", ["--config-yml", "md17/schnet_dc", "--run-dir", str(tmp_path), *words])


@settings(max_examples=300, deadline=None)
@given(KEYS, VALUES)
@example("loss_functions", [3])
@example("loss_functions", [{"energy": None}])
@example("outputs", {"energy": 3})
@example("dataset", {"train": {"transforms": 3}})
@example("model", {"name": ["schnet"]})
@example("evaluation_metrics", {"metrics": {"energy": None}})
@example("evaluation_metrics", {"metrics": {"energy": 3}})
def test_configs(key, value):
    config = dict(SOUND)
    inner = config
    *sections, name = key.split(".")
    for section in sections:
        inner[section] = dict(inner[section]) if isinstance(inner.get(section), dict) else {}
        inner = inner[section]
    inner[name] = value
    with contextlib.suppress(InputError):
        assert check_config(config).keys() >= config.keys()
