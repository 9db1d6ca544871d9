"""Sphinx configuration; `make docs` runs `.docs/build.py`, which calls Sphinx with this file."""

import re

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
    "figures/*.ipynb",
]

# Markdown as GitHub reads it: $ and $$ mathematics, anchors of headings, links between files.
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

# The tour is run, and an error in it stops the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# Docstrings follow numpydoc; single backticks link to a name if there is one.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Mathematics is set by MathJax, copied into the site from a package: nothing is loaded from elsewhere.
mathjax_path = "mathjax/tex-chtml.js"
mathjax_options = {"defer": "defer"}
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "furo"
html_title = "windgames"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def link_theory(app, what, name, obj, options, lines):
    """Turn "theory 5.2" in a docstring into a link to the statement."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(
            r"(?<![`\w])([Tt]heory )((?:\d\.\d+(?:, | and | to )?)+)",
            lambda cited: cited[1] + re.sub(r"(\d)\.(\d+)", r":ref:`\1.\2 <thm-\1-\2>`", cited[2]),
            line,
        )


def setup(app):
    """Connect the transformation of docstrings."""
    app.connect("autodoc-process-docstring", link_theory)
