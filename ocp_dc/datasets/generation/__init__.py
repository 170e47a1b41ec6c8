"""Making labelled conformations of a molecule: dynamics with GFN2-xTB, labels from it or from DFT.

:func:`ocp_dc.datasets.generation.generate.generate` is what ``ocp-dc md17 generate`` calls. The generator of the oxide
sample, ``scripts/generate_sample_oxides.py``, shares its dynamics, processes and partial results.
"""
