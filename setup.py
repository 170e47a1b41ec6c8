"""What setup.cfg cannot say: stand-ins for torch_scatter and torch_sparse are known to every Python that has ocp_dc."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FINDER = Path(__file__).parent / "ocp_dc" / "_pyg_fallback" / "finder.py"


class BuildWithStartUpFile(build_py):
    """Adds a .pth file, which Python runs as it starts, to what goes into site-packages."""

    def run(self) -> None:
        super().run()
        # an editable wheel leaves out the build folder, and takes what is in its own
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        code = FINDER.read_text(encoding="utf-8")
        line = f"import sys; exec({code!r}, {{'__name__': 'ocp_dc._pyg_fallback.finder'}})\n"
        Path(folder, "ocp_dc_stand_ins.pth").write_text(line, encoding="utf-8")


setup(cmdclass={"build_py": BuildWithStartUpFile})
