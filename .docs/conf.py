"""Sphinx configuration; `make docs` runs `.docs/build.py`, which calls Sphinx with this file."""

import importlib.util
import re
from pathlib import Path

import windgames

project = "windgames"
author = "The windgames authors"
copyright = "the windgames authors, MIT licence"
version = release = windgames.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_copybutton",
]
root_doc = "README"
include_patterns = [
    "*.md",
    "api/*.md",
    "windgames/*.md",
    "windlm/*.md",
    "benchmarks/*.md",
    "figures/*.md",
    "figures/tour.py",
]
exclude_patterns = ["benchmarks/quick/**"]

# Markdown as GitHub reads it: $ and $$ mathematics, anchors of headings, links between files.
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

# The tour is a Python file with percent cells; it is run, and an error in it stops the build.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# Docstrings follow numpydoc; single backticks link to a name if there is one.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
autodoc_mock_imports = [
    name
    for name in ("torch", "transformers", "accelerate", "datasets", "peft", "gguf", "tqdm", "tyro", "yaml", "cvxpy")
    if importlib.util.find_spec(name) is None
]
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Mathematics is set by MathJax, copied into the site from a package: nothing is loaded from elsewhere.
mathjax_path = "mathjax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full"
mathjax_options = {"defer": "defer"}
mathjax2_config = {
    "messageStyle": "none",
    "showMathMenu": False,
    "extensions": ["tex2jax.js"],
    "jax": ["input/TeX", "output/HTML-CSS"],
    "tex2jax": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]], "processClass": "math"},
    "HTML-CSS": {"availableFonts": [], "webFont": "STIX-Web", "linebreaks": {"automatic": False}, "scale": 95},
}

html_theme = "furo"
html_title = "windgames"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def complete_page(app, docname, source):
    """Give the first page its table of contents, and theory's HTML anchors the form that links are checked against."""
    if docname == root_doc:
        source[0] += Path(app.confdir, "toctree.md").read_text(encoding="utf-8")
    source[0] = re.sub(r'<a id="([\w-]+)"></a>', r"(\1)=", source[0])


def link_theory(app, what, name, obj, options, lines):
    """Turn "theory 5.2" in a docstring into a link to the statement."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(
            r"(?<![`\w])([Tt]heory )((?:\d\.\d+(?:, | and | to )?)+)",
            lambda cited: cited[1] + re.sub(r"(\d)\.(\d+)", r":ref:`\1.\2 <thm-\1-\2>`", cited[2]),
            line,
        )


def setup(app):
    """Connect the two transformations."""
    app.connect("source-read", complete_page)
    app.connect("autodoc-process-docstring", link_theory)
