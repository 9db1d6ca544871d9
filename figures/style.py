"""One look for all figures, and where they read tables and write pictures."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from cycler import cycler
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parent.parent
_folders = {"results": ROOT / "benchmarks" / "results", "pictures": ROOT / "figures"}

# Okabe and Ito's colours, which stay apart for colour-blind readers.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)

METHODS = {
    "WIND": (BLUE, "o"),
    "extragradient": (RED, "s"),
    "best-of-n, power form": (GREEN, "^"),
    "best-of-n, exact": (ORANGE, "v"),
    "log-win-rate": (GREEN, "^"),
    "win-rate": (BLUE, "o"),
    "SPPO": (PINK, "D"),
    "Nash-MD": (SKY, "P"),
    "OMWU": (BLACK, "X"),
    "J-BOND": ("#B8860B", "*"),
    "WIND, independent": ("#4477AA", "h"),
    "WIND, mixture": ("#66CCEE", "<"),
    "WIND, unseen = 1/2": ("#AABBDD", "x"),
    "WIND, reused": ("#88AADD", "+"),
    "WIND, all responses": ("#003D73", ">"),
    "WIND, decaying": ("#332288", "p"),
    "WIND, beta (1 - 2q)": ("#882255", "H"),
    "best-of-n distillation": (ORANGE, "v"),
    "iterative BOND": (GREEN, "^"),
    "REINFORCE": ("#999999", "d"),
    "REINFORCE, self-play": ("#555555", "1"),
    "WIND, KL risk": ("#56708A", "<"),
    "WIND, NCE risk": ("#7FA6C9", ">"),
    "best-of-n, likelihood": (ORANGE, "v"),
    "WIND, beta 0.2": ("#4477AA", "h"),
    "WIND, beta 0.8": ("#88AADD", "p"),
    "WIND, flipped": ("#882255", "H"),
    "WIND, reward model": ("#117733", "<"),
    "WIND, Gemma": ("#AA4499", ">"),
    "WIND, small step": ("#88AADD", "p"),
    "GRPO": ("#555555", "d"),
    "online DPO": ("#117733", "8"),
    "best-of-n": (ORANGE, "v"),
}
"""Colour and marker of each method, the same in every figure."""

BOUND = {"linestyle": "--", "linewidth": 1.0, "marker": "", "alpha": 0.9}
"""How a bound is drawn."""

plt.rcParams.update(
    {
        "axes.prop_cycle": cycler(color=CYCLE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "axes.grid": True,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "figure.constrained_layout.use": True,
        "figure.dpi": 110,
        "font.size": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "legend.title_fontsize": 8,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "mathtext.fontset": "cm",
        "savefig.dpi": 150,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
    }
)


def use(results: Path | None = None, pictures: Path | None = None) -> None:
    """Read tables from, and write pictures to, other folders."""
    _folders.update({k: Path(v) for k, v in (("results", results), ("pictures", pictures)) if v is not None})


def table_path(name: str) -> Path:
    """Return where the table of a study lies."""
    path = _folders["results"] / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"There is no table {path}: run its study in benchmarks/ first.")
    return path


def read(name: str) -> pd.DataFrame:
    """Return the table of a study."""
    return pd.read_csv(table_path(name))


def method(name: str, **changes: object) -> dict[str, object]:
    """Return the line style of a method."""
    colour, marker = METHODS[name]
    return {"color": colour, "marker": marker} | changes


def note(axis: plt.Axes, x: float, y: float, text: str, **how: object) -> None:
    """Write a remark into a picture, in data coordinates unless told otherwise."""
    axis.text(x, y, text, **{"color": "0.3", "fontsize": 8} | how)  # type: ignore[arg-type]


def save(fig: plt.Figure, name: str, source: Path | None = None) -> Path:
    """Write a picture that carries the path of its table in its metadata."""
    path = _folders["pictures"] / f"{name}.png"
    told = source.relative_to(ROOT) if source and source.is_relative_to(ROOT) else source and source.name
    buffer, info = BytesIO(), PngInfo()
    fig.savefig(buffer)
    info.add_text("Source", str(told or f"figures/plot_{name}.py"))
    info.add_text("Software", "windgames")
    # 256 colours: a third of the size, and no difference to the eye
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True, pnginfo=info)
    if "ipykernel" not in sys.modules:
        plt.close(fig)
    return path
