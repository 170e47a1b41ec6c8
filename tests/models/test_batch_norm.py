import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ocp_dc.models.batch_norm import BatchNorm1d

INPUT = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def norms():
    """Ours and PyTorch's, alike."""
    pytorchs = nn.BatchNorm1d(6).double()
    for tensor in (pytorchs.weight.data, pytorchs.bias.data, pytorchs.running_mean):
        tensor.normal_(generator=torch.Generator().manual_seed(1))
    ours = BatchNorm1d(6).double()
    ours.load_state_dict(pytorchs.state_dict(), strict=True)
    return ours, pytorchs


def through(norm, x):
    """Values, the slope of a function of them, and gradients of a loss on both."""
    x = x.clone().requires_grad_()
    y = norm(x)
    slope, of_weight = torch.autograd.grad(y.sin().sum(), [x, norm.weight], create_graph=True)
    loss = y.square().sum() + slope.square().sum() + of_weight.square().sum()
    return y, slope, of_weight, *torch.autograd.grad(loss, [x, norm.weight, norm.bias])


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_pytorchs(training):
    ours, pytorchs = (norm.train(training) for norm in norms())
    for scale in (1, 3):
        torch.testing.assert_close(
            through(ours, scale * INPUT), through(pytorchs, scale * INPUT), rtol=1e-11, atol=1e-11
        )
    assert ours.state_dict().keys() == pytorchs.state_dict().keys()
    torch.testing.assert_close(ours.state_dict(), pytorchs.state_dict(), rtol=1e-13, atol=1e-13)
    assert ours.num_batches_tracked == 2 * training


def test_batch_norm_against_differences():
    norm = norms()[0].train()

    def function(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    inputs = (INPUT.clone().requires_grad_(), norm.weight, norm.bias)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_batch_norm_of_one_row_is_refused_as_pytorchs():
    for norm in norms():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm.train()(INPUT[:1])
