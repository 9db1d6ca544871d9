"""Build the site: docstrings, READMEs, theory and the executed tour, all warnings as errors.

The pages are the files of the repository. They are linked into a folder of their own, so that links between them
work as they do on GitHub, and so that nothing of the configuration lies at the top level.
"""

import shutil
import sys
from pathlib import Path

import jupyter_server_mathjax
from sphinx.cmd.build import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile")
FOLDERS = ("windgames", "windlm", "benchmarks", "figures", "tests")
UNUSED = shutil.ignore_patterns("a11y", "SVG", "localization", "MathML", "mhchem*")
"""Parts of MathJax that the site does not load."""


def stage(source: Path) -> None:
    """Link the repository's pages, and the API pages beside this file, into `source`."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in (*PAGES, *FOLDERS):
        (source / name).symlink_to(ROOT / name)
    (source / "api").symlink_to(ROOT / ".docs" / "api")


def build(site: Path, *arguments: str) -> int:
    """Build the site in the folder `site` and return Sphinx's exit status."""
    source = site.parent / "docs-source"
    stage(source)
    status = main(["-W", "--keep-going", "-b", "html", "-c", str(ROOT / ".docs"), *arguments, str(source), str(site)])
    if status == 0:
        mathjax = Path(jupyter_server_mathjax.__file__).parent / "static"
        shutil.copytree(mathjax, site / "_static" / "mathjax", ignore=UNUSED, dirs_exist_ok=True)
        shutil.copyfile(site / "README.html", site / "index.html")
        print(f"The site is {site / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "docs", *sys.argv[1:]))
