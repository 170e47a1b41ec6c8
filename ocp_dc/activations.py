"""Activations by name: the integrated ReLU (paper, Eq. 3), its relatives, and the plain ones a config may ask for.

A network trained on derivatives of its output uses the derivative of its activation as the activation of the
derivative. An *integrated* activation is therefore the exact antiderivative from 0 of a well-tried base activation: its
value is the integral, its first derivative is the base activation itself, and so on to any order.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocp_dc.errors import InputError

ActivationFactory = Callable[[], nn.Module]
Factory = TypeVar("Factory", bound=ActivationFactory)

ORIGINAL = "original"
_FACTORIES: dict[str, ActivationFactory] = {}


def register_activation(name: str) -> Callable[[Factory], Factory]:
    """Decorate a function that makes a module (a class without required arguments, say): ``activation(name)`` calls it.

    Raises:
        InputError: the name is taken, or is ``original``, which tells a model to keep its own activations.
    """
    if name == ORIGINAL or name in _FACTORIES:
        raise InputError(f"Activation name {name!r} is already taken; register under another name.")

    def register(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
        return factory

    return register


def known_activations() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_FACTORIES))


def activation(name: str) -> nn.Module:
    """A fresh module of the activation registered under ``name``.

    Raises:
        InputError: an unknown name; the message has the nearest known one and all of them.
    """
    if name not in _FACTORIES:
        nearest = difflib.get_close_matches(str(name).lower(), _FACTORIES, n=1)
        suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(
            f"Unknown activation {name!r}.{suggestion} Known: {', '.join(known_activations())}; "
            f"in `model.activation`, also {ORIGINAL!r} (the model keeps its own)."
        )
    return _FACTORIES[name]()


class _Antiderivative(torch.autograd.Function):
    """``integral(x)`` with gradient ``base(x)``: exact, and half the cost of differentiating the integral twice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, integral: Callable[[Tensor], Tensor], base: Callable[[Tensor], Tensor]) -> Tensor:
        return integral(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, _, ctx.base = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        return grad * ctx.base(x), None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * ctx.base(x)


class IntegratedActivation(nn.Module):
    """Elementwise ∫₀ˣ base(t) dt, for tensors of any shape; value 0 at x = 0.

    A subclass gives ``base`` (of differentiable operations), ``integral`` (for the value only: autograd does not look
    inside) and the ``formula`` that its repr shows. Derivatives are those of ``base``, to any order.
    """

    base: ClassVar[Callable[[Tensor], Tensor]]
    integral: ClassVar[Callable[[Tensor], Tensor]]
    formula: ClassVar[str]

    @torch.compiler.disable  # it cannot trace a Function that takes functions: a compiled model breaks its graph here
    def forward(self, x: Tensor) -> Tensor:
        return _Antiderivative.apply(x, self.integral, self.base)

    def extra_repr(self) -> str:
        return self.formula


@register_activation("irelu")
class IReLU(IntegratedActivation):
    """Integrated ReLU (paper, Eq. 3): IReLU(x) = ∫₀ˣ ReLU(t) dt = x²/2 for x > 0, else 0; any shape.

    The first derivative is exactly ReLU(x). The second is the step function, 0 at x = 0 (PyTorch's convention for the
    derivative of ReLU), and all further ones are 0. Unbounded: grows as x²/2 for x → ∞, is 0 for every x ≤ 0.
    """

    formula = "x^2/2 if x > 0 else 0"
    base = staticmethod(F.relu)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        positive = torch.relu(x)
        return torch.addcmul(x.new_zeros(()), positive, positive, value=0.5)


@register_activation("bounded_irelu")
class BoundedIReLU(IntegratedActivation):
    """∫₀ˣ min(ReLU(t), 1) dt = x²/2 for 0 < x ≤ 1, x − 1/2 beyond, else 0: IReLU with a slope of at most 1; any shape.

    Composed n times, IReLU grows as the 2ⁿ-th power of its input: what exceeds its fixed point, 2, overflows in a deep
    stack of layers. This one grows linearly. Once differentiable everywhere; the second derivative is 1 for 0 < x < 1,
    else 0.
    """

    formula = "x^2/2 if 0 < x <= 1, x - 1/2 if x > 1, else 0"

    @staticmethod
    def base(x: Tensor) -> Tensor:
        return F.hardtanh(x, 0, 1)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        bend = x.clamp(0, 1)
        return bend * (x - 0.5 * bend)


@register_activation("integrated_leaky_relu")
class IntegratedLeakyReLU(IntegratedActivation):
    """∫₀ˣ LeakyReLU(t) dt = x²/2 for x > 0, else 0.01 x²/2; any shape. Unbounded above on both sides."""

    formula = "x^2/2 if x > 0 else 0.01 x^2/2"
    base = staticmethod(F.leaky_relu)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        return 0.5 * x * F.leaky_relu(x)


@register_activation("integrated_elu")
class IntegratedELU(IntegratedActivation):
    """∫₀ˣ ELU(t) dt = x²/2 for x > 0, else eˣ − 1 − x; any shape. Grows as x²/2 for x → ∞ and as −x for x → −∞."""

    formula = "x^2/2 if x > 0 else exp(x) - 1 - x"
    base = staticmethod(F.elu)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        near_zero = x.square() * _polynomial(_EXPONENTIAL_TAIL, x.clamp(-_NEAR_ZERO, 0))
        return torch.where(x < -_NEAR_ZERO, torch.expm1(x) - x, near_zero)


def _softplus(x: Tensor) -> Tensor:
    # PyTorch's default threshold, 20, errs by exp(-20) = 2e-9: too much in float64.
    return F.softplus(x, threshold=40)


@register_activation("integrated_softplus")
class IntegratedSoftplus(IntegratedActivation):
    """∫₀ˣ log(1 + eᵗ) dt = −Li₂(−eˣ) − π²/12; any shape.

    Grows as x²/2 + π²/12 for x → ∞ and tends to −π²/12 for x → −∞; x ln 2 near 0.
    """

    formula = "-Li2(-exp(x)) - pi^2/12"
    base = staticmethod(_softplus)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        tail = _integrated_softplus_of_minus(x.abs())
        # log(1 + eᵗ) = t + log(1 + e⁻ᵗ) carries the positive side to the negative one.
        return torch.where(x < 0, -tail, 0.5 * x.square() + tail)


@register_activation("integrated_silu")
class IntegratedSiLU(IntegratedActivation):
    """∫₀ˣ t σ(t) dt = x log(1 + eˣ) + Li₂(−eˣ) + π²/12; any shape.

    Grows as x²/2 − π²/12 for x → ∞ and tends to π²/12 for x → −∞; x²/4 near 0.
    """

    formula = "x log(1 + exp(x)) + Li2(-exp(x)) + pi^2/12"
    base = staticmethod(F.silu)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        size = x.abs()
        # By parts, from the negative side; there t σ(t) = t − t σ(−t) has carried the positive one.
        tail = _integrated_softplus_of_minus(size) - size * _softplus(-size)
        far = torch.where(x > 0, 0.5 * x.square() - tail, tail)
        small = x.clamp(-_NEAR_ZERO, _NEAR_ZERO)
        near_zero = small.square() * (0.25 + small * _polynomial(_LOG_COSH_TAIL, small.square()))
        return torch.where(size > _NEAR_ZERO, far, near_zero)


_NEAR_ZERO = 0.5
_LN2 = math.log(2)
_BERNOULLI = {2: 1 / 6, 4: -1 / 30, 6: 1 / 42, 8: -1 / 30, 10: 5 / 66, 12: -691 / 2730, 14: 7 / 6, 16: -3617 / 510}
# eˣ − 1 − x = x² Σ xᵏ / (k + 2)!
_EXPONENTIAL_TAIL = [1 / math.factorial(k + 2) for k in range(14)]
# ∫₀ˣ t tanh(t/2)/2 dt = x³ Σ (2ⁿ − 1) Bₙ xⁿ⁻² / (n! (n + 1)), even n
_LOG_COSH_TAIL = [(2**n - 1) * b / math.factorial(n) / (n + 1) for n, b in _BERNOULLI.items()]


def _dilogarithm_about_ln2() -> list[float]:
    """The c of P(ln 2) − P(ln 2 − d) = d Σ cⱼ dʲ, where P(u) = −Li₂(1 − eᵘ) = u + u²/4 + Σ Bₙ uⁿ⁺¹/(n + 1)!, even n."""
    series = {1: 1.0, 2: 0.25} | {n + 1: b / math.factorial(n + 1) for n, b in _BERNOULLI.items()}
    return [
        (-1) ** j * math.fsum(c * math.comb(n, j + 1) * _LN2 ** (n - j - 1) for n, c in series.items())
        for j in range(max(series))
    ]


_DILOGARITHM = _dilogarithm_about_ln2()


def _integrated_softplus_of_minus(x: Tensor) -> Tensor:
    """∫₀ˣ log(1 + e⁻ᵗ) dt for x ≥ 0, to rounding error relative to its value (π²/12 + Li₂(−e⁻ˣ) cancels near 0).

    In u = log(1 + e⁻ˣ), which falls from ln 2 to 0, the dilogarithm is the fast series P(u); in d = ln 2 − u the
    integral is a polynomial without constant term.
    """
    d = -torch.log1p(torch.expm1(-x) / 2)
    return d * _polynomial(_DILOGARITHM, d)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Σ coefficients[k] xᵏ for |x| ≤ ln 2, by Horner's rule, without the last terms where they are below rounding."""
    negligible = torch.finfo(x.dtype).eps * abs(coefficients[0]) / 8
    degree = max(k for k, c in enumerate(coefficients) if abs(c) * _LN2**k > negligible)
    total = torch.full_like(x, coefficients[degree])
    for c in reversed(coefficients[:degree]):
        total = total * x + c
    return total


@register_activation("shifted_softplus")
class ShiftedSoftplus(IntegratedActivation):
    """∫₀ˣ σ(t) dt = log(1 + eˣ) − ln 2, SchNet's activation; any shape; x − ln 2 for x → ∞, −ln 2 for x → −∞."""

    formula = "log(1 + exp(x)) - ln 2"
    base = staticmethod(torch.sigmoid)

    @staticmethod
    def integral(x: Tensor) -> Tensor:
        return F.softplus(x) - _LN2


_FACTORIES |= {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU}
_FACTORIES |= {"softplus": nn.Softplus, "tanh": nn.Tanh}
