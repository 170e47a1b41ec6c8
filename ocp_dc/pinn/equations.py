"""The three equations, as data: what is solved, on which grid, and which numbers the paper prints."""

from __future__ import annotations

from dataclasses import dataclass

BETA = 0.1
GAMMA = 5 / 3
# of the activator u and the inhibitor v, and the reaction's constant
DIFFUSION_U, DIFFUSION_V, REACTION = 1e-3, 5e-3, 5e-3


@dataclass(frozen=True)
class Equation:
    """An equation with the grid of PDEBench's data.

    Attributes:
        name: in the names of files and folders.
        title: for readers.
        inputs: of the network: coordinates in space, then time.
        components: of the solution, in the order of the network's outputs.
        low, high: of each coordinate in space.
        end: the last time; the first is 0.
        cells: along each coordinate in space.
        times: that are saved, the first and the last included.
        file: PDEBench's name of the data.
        sample: the one that the paper's runs used.
        iterations: of the published runs.
    """

    name: str
    title: str
    inputs: tuple[str, ...]
    components: tuple[str, ...]
    low: float
    high: float
    end: float
    cells: int
    times: int
    file: str
    sample: int
    iterations: int

    @property
    def space(self) -> int:
        """The number of coordinates in space."""
        return len(self.inputs) - 1


ADVECTION = Equation(
    name="advection",
    title="advection",
    inputs=("x", "t"),
    components=("u",),
    low=0.0,
    high=1.0,
    end=2.0,
    cells=1024,
    times=201,
    file="1D_Advection_Sols_beta0.1.hdf5",
    sample=-10,
    iterations=15_000,
)
CFD = Equation(
    name="cfd",
    title="compressible fluid dynamics",
    inputs=("x", "t"),
    components=("density", "velocity", "pressure"),
    low=-1.0,
    high=1.0,
    end=1.0,
    cells=1024,
    times=101,
    file="1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_periodic_Train.hdf5",
    sample=-10,
    iterations=15_000,
)
DIFFUSION_REACTION = Equation(
    name="diffusion_reaction",
    title="diffusion-reaction",
    inputs=("x", "y", "t"),
    components=("u", "v"),
    low=-1.0,
    high=1.0,
    end=5.0,
    cells=128,
    times=101,
    file="2D_diff-react_NA_NA.h5",
    sample=0,
    iterations=100,
)
EQUATIONS = {equation.name: equation for equation in (ADVECTION, CFD, DIFFUSION_REACTION)}
