# %% [markdown]
# # Time against the number of responses, solver by solver
# One thread. At beta = 0 accuracy is that of the gap. A line ends where a solver was over time, gave no answer, or
# takes no larger game.

# %%
import matplotlib.pyplot as plt
import style
from matplotlib.lines import Line2D

table = style.read("solvers_grid")
table = table[(table.threads == "one") & (table.status == "answered")]
priced = sorted(table.beta[table.beta > 0].unique())
betas = [priced[(len(priced) - 1) // 2], 0.0]
kinds = [kind for kind in ("reward", "intransitive", "tournament", "lopsided reference") if (table.kind == kind).any()]

FAMILIES = {
    "windgames": style.BLUE,
    "mirror descent": style.SKY,
    "Clarabel": style.RED,
    "ECOS": style.ORANGE,
    "SCS": style.YELLOW,
    "pygambit": style.GREEN,
    "OpenSpiel": style.PINK,
    "Nashpy": style.BLACK,
    "QuantEcon": "#999999",
}
"""Colour of each solver's name; the marker is for accuracy."""
SECOND = ("tight", "Lemke")


def look(solver):
    colour = next(colour for family, colour in FAMILIES.items() if solver.startswith(family))
    width = 2.4 if solver == "windgames" else 1.2
    return {"color": colour, "linewidth": width, "linestyle": "--" if any(s in solver for s in SECOND) else "-"}


# %%
fig, axes = plt.subplots(2, len(kinds), figsize=(9, 7.0), sharey=True, squeeze=False)
MARKERS = {
    "tight": ("o", None, "log-probabilities right to 1e-8"),
    "loose": ("o", "white", "only probabilities, to 1e-6"),
    "neither": ("x", None, "neither"),
}
for beta, row in zip(betas, axes, strict=True):
    for kind, axis in zip(kinds, row, strict=True):
        for solver, one in table[(table.kind == kind) & (table.beta == beta)].groupby("solver", sort=False):
            axis.plot(one.m, one.seconds, **look(solver))
            for accuracy, (marker, fill, _) in MARKERS.items():
                some = one[one.accuracy == accuracy]
                axis.plot(
                    some.m, some.seconds, color=look(solver)["color"], marker=marker, linestyle="", markerfacecolor=fill
                )
        axis.set(xscale="log", yscale="log", title=f"{kind.capitalize()}\n" + rf"$\beta={beta:g}$")
for axis in axes[-1]:
    axis.set_xlabel("responses")
for axis in axes[:, 0]:
    axis.set_ylabel("seconds, one thread")
shown = [solver for solver in dict.fromkeys(table.solver) if solver != "windgames, one by one"]
handles = [Line2D([], [], label=solver, **look(solver)) for solver in shown]
handles += [
    Line2D([], [], color="k", marker=marker, linestyle="", markerfacecolor=fill, label=words)
    for marker, fill, words in MARKERS.values()
]
fig.legend(
    handles=handles,
    loc="outside lower center",
    ncols=4,
    fontsize=7.5,
    title="a line ends where a solver was over time, gave no answer, or takes no larger game",
)

# %%
style.save(fig, "solvers", style.table_path("solvers_grid"))
