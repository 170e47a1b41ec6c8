import pytest
from small_models import SCHNET

from ocp_dc.activations import IReLU
from ocp_dc.errors import InputError


def test_activation_sites():
    model = SCHNET.build()
    # one in the output block, and per interaction one in the filter network and one after the convolution
    assert len(model.replaced_activations) == 1 + 2 * SCHNET.settings["num_interactions"]
    assert isinstance(model.act, IReLU)
    assert not any("Softplus" in type(module).__name__ for module in model.modules())
    assert len(SCHNET.build(activation_scope="all").replaced_activations) == len(model.replaced_activations)
    assert SCHNET.build("original").replaced_activations == []


def test_unknown_scope_lists_the_known_ones():
    with pytest.raises(InputError, match=r"model\.activation_scope is 'head'.*paper, all"):
        SCHNET.build(activation_scope="head")
