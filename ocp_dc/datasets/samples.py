"""The two small data sets that come with the package; ``sample/README.md`` says how they were made."""

from pathlib import Path

# stands for a sample where a command takes a file
SAMPLE_WORD = "sample"
_FOLDER = Path(__file__).parent / "sample"


def sample_path() -> Path:
    """1,000 conformations of ethanol, in MD17's keys and units."""
    return _FOLDER / "ethanol_pbe.npz"


def oxide_sample_path() -> Path:
    """Oxide slabs with adsorbates, labelled with GFN1-xTB."""
    return _FOLDER / "oxide_slabs_gfn1.traj"


def path_or_sample(word: str, sample: Path) -> Path:
    """The path that a word on the command line names."""
    return sample if word == SAMPLE_WORD else Path(word)
