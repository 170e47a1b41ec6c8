"""The site: `scripts/docs.sh` builds it from these pages and the docstrings."""

from __future__ import annotations

import re
import warnings

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

import ocp_dc

# fairchem and its needs announce what they will do in future
warnings.filterwarnings("ignore")

project = "ocp_dc"
author = copyright = "the ocp_dc developers"
release = ocp_dc.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"ocp_dc {release}"
html_show_sourcelink = html_copy_source = False
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes", ("Task keys", "params_style")]
# attributes as a list in the text of their class
napoleon_use_ivar = True


# of formulas in docstrings, which are written to be read as they are
TEX = str.maketrans({"≤": r"\leq ", "≥": r"\geq ", "·": r"\cdot ", "∂": r"\partial ", "−": "-"})


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which needs no script from elsewhere; |x| in docstrings is an absolute value."""
    app.add_html_math_renderer("mathml", (_show_inline_formula, None), (_show_formula, None))
    app.connect("autodoc-process-docstring", _escape_bars)


def _show_inline_formula(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext(), node))
    raise nodes.SkipNode


def _show_formula(translator: HTML5Translator, node: nodes.math_block) -> None:
    formula, _, number = node.astext().partition(r"\tag")
    number = f"<span class='eqno'>({number.strip('{} ')})</span>" if number else ""
    translator.body.append(f"<div class='math'>{number}{_mathml(formula, node)}</div>")
    raise nodes.SkipNode


def _mathml(formula: str, node: nodes.Element) -> str:
    try:
        return tex2mathml(formula.translate(TEX), as_block=isinstance(node, nodes.math_block))
    except MathError as error:
        logging.getLogger(__name__).warning("formula %s: %s", formula, error, location=node)
        return ""


def _escape_bars(app: Sphinx, what: str, name: str, object_: object, options: object, lines: list[str]) -> None:
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line) for line in lines]
