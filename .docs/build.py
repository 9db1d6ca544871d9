"""Build the site: READMEs, theory, API reference and the executed tour, with all warnings as errors.

The pages are the files of the repository, copied into a folder of their own so that links between them work as they do
on GitHub. What is not a page, a Python file for instance, becomes a download where a page links to it.
"""

import re
import shutil
import sys
from functools import partial
from pathlib import Path

import jupytext
import mathjax  # of django-static-mathjax, which holds nothing but MathJax
from sphinx.cmd.build import main

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / ".docs"
FOLDERS = ("windgames", "windlm", "benchmarks", "figures", "tests")
SKIPPED = shutil.ignore_patterns("__pycache__", "quick", ".cells", ".hypothesis")
MATHJAX = ("tex-chtml.js", "output/chtml/fonts")
"""Parts of MathJax that the site loads."""


def stage(source: Path) -> None:
    """Copy the repository's pages, and the API pages, into `source`, and make the tour a notebook."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for file in (*ROOT.glob("*.md"), *ROOT.glob("*.cff"), ROOT / "LICENSE", ROOT / "Makefile"):
        shutil.copy(file, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=SKIPPED)
    shutil.copytree(CONFIGURATION / "api", source / "api")
    for page in (p for p in source.rglob("*.md") if p.parent.name != "api"):
        text = page.read_text(encoding="utf-8").replace("figures/tour.py)", "figures/tour.ipynb)")
        # HTML anchors, which GitHub follows, as targets that Sphinx checks links against
        text = re.sub(r'<a id="([\w-]+)"></a>', r"(\1)=", text)
        # GitHub shows a folder that a link leads to; a site has nothing to show
        for link, shown, target in set(re.findall(r"(\[([^\]]*)\]\(([\w./-]+)\))", text)):
            if (page.parent / target).is_dir():
                text = text.replace(link, shown)
        page.write_text(text, encoding="utf-8")
    with (source / "README.md").open("a", encoding="utf-8") as front:
        front.write((CONFIGURATION / "toctree.md").read_text(encoding="utf-8"))
    jupytext.write(jupytext.read(source / "figures" / "tour.py"), source / "figures" / "tour.ipynb")


def build(site: Path, *arguments: str) -> int:
    """Build the site in the folder `site` and return Sphinx's exit status."""
    source = site.parent / "docs-source"
    shutil.rmtree(site, ignore_errors=True)  # what an older build knew of a page that has moved would count as a double
    stage(source)
    options = ["-W", "--keep-going", "-b", "html", "-c", str(CONFIGURATION), *arguments]
    status = main([*options, str(source), str(site)])
    if status == 0:
        for part in MATHJAX:
            copied = Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / part
            target = site / "_static" / "mathjax" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copyfile if copied.is_file() else partial(shutil.copytree, dirs_exist_ok=True)
            copy(copied, target)
        shutil.copyfile(site / "README.html", site / "index.html")
        print(f"Open {site / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "docs", *sys.argv[1:]))
