"""How the tables of the paper are run: protocols, networks, scales and the paper's numbers, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ocp_dc.pinn.equations import ADVECTION, CFD, DIFFUSION_REACTION, EQUATIONS, Equation

MSE, RMSE, NRMSE = "MSE", "RMSE", "nRMSE"
# marks a loss term that has derivatives of the network, as in the paper
DERIVATIVE = "†"
AS_PUBLISHED = "as_published"


@dataclass(frozen=True)
class Protocol:
    """How networks are trained.

    Attributes:
        about: in a few words.
        problems: the module of this package that has problems and networks.
        precision: of all numbers.
        lbfgs: the last share of the iterations, which are L-BFGS's; the others are Adam's.
        scaled: whether outputs and loss terms are in units of the data's size.
    """

    about: str
    problems: str
    precision: str = "float32"
    lbfgs: float = 0.0
    scaled: bool = False


PROTOCOLS = {
    AS_PUBLISHED: Protocol("as the published runs were, faults included", "as_published"),
    "corrected": Protocol("what the equations say", "corrected"),
    "corrected_scaled": Protocol("the same in units of the data's size", "corrected", scaled=True),
    "corrected_float64": Protocol("the same in float64", "corrected", precision="float64"),
    "corrected_lbfgs": Protocol("the same, the last fifth by L-BFGS", "corrected", lbfgs=0.2),
}
# the paper's rows, the baseline first
NETWORKS = ("tanh", "irelu", "tanh+bn", "irelu+bn")
# of activations, for readers; others are called by their names
TITLES = {
    "irelu": "IReLU",
    "silu": "SiLU",
    "integrated_silu": "integrated SiLU",
    "integrated_elu": "integrated ELU",
    "integrated_softplus": "integrated softplus",
}
CORRECTED_ITERATIONS = {ADVECTION.name: 15_000, CFD.name: 15_000, DIFFUSION_REACTION.name: 5_000}


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        title: its subject.
        equation: its name.
        terms: the loss terms that it prints.
        published: the paper's numbers by network: the error, then the terms.
    """

    title: str
    equation: Equation
    terms: tuple[str, ...]
    published: dict[str, tuple[float, ...]]

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of what is shown: the errors, then the loss terms."""
        return (NRMSE, RMSE, MSE, *self.terms)

    def paper(self, network: str) -> dict[str, float]:
        """The paper's numbers of a row. What it calls MSE is the nRMSE, see docs/pinn.md."""
        return dict(zip((NRMSE, *self.terms), self.published[network], strict=True))


TABLES = {
    "table3": PaperTable(
        "Table 3: advection",
        ADVECTION,
        ("L_f†", "L_IC", "L_BC"),
        {
            "tanh": (1.59, 1e-5, 3e-6, 6e-6),
            # two are printed as <e-45, less than float32 has
            "irelu": (0.99, 1e-45, 0.08, 1e-45),
            "tanh+bn": (1.70, 8e-16, 5e-5, 3e-5),
            "irelu+bn": (2.42, 9e-12, 8e-6, 2e-6),
        },
    ),
    "table4": PaperTable(
        "Table 4: compressible fluid dynamics",
        CFD,
        ("L_f†", "L_IC_p", "L_IC_d", "L_IC_v", "L_BC_p", "L_BC_d", "L_BC_v"),
        {
            "tanh": (0.87, 7.96, 4694.60, 16.01, 0.27, 0.11, 0.11, 0.11),
            "irelu": (0.40, 0.11, 88.78, 0.21, 0.17, 1e-6, 1e-6, 1e-6),
            "tanh+bn": (1.11, 271.94, 2910.32, 11.37, 0.25, 0.15, 0.15, 0.15),
            "irelu+bn": (1.66, 2e7, 4656.73, 32.97, 0.87, 1.96, 1.96, 1.96),
        },
    ),
    "table5": PaperTable(
        "Table 5: diffusion-reaction",
        DIFFUSION_REACTION,
        ("L_f†", "L_IC_u", "L_IC_v", "L_BC†", "L_BC_u", "L_BC_v"),
        {
            "tanh": (1.35, 2e-4, 0.97, 0.99, 1e-4, 1e-4, 3e-5),
            "irelu": (1.13, 1e-4, 0.98, 1.00, 3e-14, 0.004, 3e-4),
            "tanh+bn": (4.94, 0.46, 1.18, 1.06, 2e-15, 0.08, 0.008),
            "irelu+bn": (8.03, 7e4, 0.98, 1.00, 2e-10, 4.44, 4.34),
        },
    ),
}


@dataclass(frozen=True)
class Scale:
    """At what size a table is run.

    Attributes:
        cells: of generated data, along each coordinate, by equation; None for PDEBench's.
        times: of generated data; None for PDEBench's.
        iterations: None for the protocol's.
        points: how many DeepXDE draws.
    """

    cells: dict[str, int] | None
    times: int | None
    iterations: int | None
    points: dict[str, int]

    def grid(self, equation: Equation) -> tuple[int, int]:
        """Cells along each coordinate, and times."""
        cells = equation.cells if self.cells is None else self.cells[equation.name]
        return cells, self.times or equation.times

    def steps(self, equation: Equation, protocol: str) -> int:
        """Iterations of a run."""
        of_protocol = equation.iterations if protocol == AS_PUBLISHED else CORRECTED_ITERATIONS[equation.name]
        return self.iterations or of_protocol


SCALES = {
    "paper": Scale(None, None, None, {"domain": 1000, "boundary": 1000, "initial": 5000}),
    # whether everything runs
    "smoke": Scale(
        {name: 16 if equation is DIFFUSION_REACTION else 64 for name, equation in EQUATIONS.items()},
        times=31,
        iterations=60,
        points={"domain": 60, "boundary": 40, "initial": 50},
    ),
}
