# %% [markdown]
# # Contraction below the threshold, collapse beyond it
# Left: the largest factor of a step in the Hilbert metric against its bound. Middle: two responses, the
# better one's mass where iterative best-of-n stops; the curve is where collapse becomes certain. Right:
# equal atoms.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_phase")
part = dict(iter(table.groupby("part")))
fig, axes = plt.subplot_mosaic([["left", "right"], ["map", "map"]], figsize=(9, 7.0), height_ratios=[1, 1.15])
left, middle, right = axes["left"], axes["map"], axes["right"]

# %%
rows = part["contraction"]
for form, name in (("power", "best-of-n, power form"), ("exact", "best-of-n, exact")):
    one = rows[rows.form == form]
    left.plot(
        one.factor_bound,
        one.factor,
        linestyle="",
        label=form,
        **style.method(name, markerfacecolor="none"),
    )
ends = np.array([rows.factor_bound.min() - 0.03, 1.0])
left.plot(ends, ends, color="0.3", label="bound (theory 3.7)", **style.BOUND)
left.set(
    xlabel=r"$n\alpha_1+\alpha_2$",
    ylabel="largest factor of a step (Hilbert metric)",
    title="Contraction below the threshold",
    xlim=tuple(ends),
)
left.legend(title="form", loc="upper left")

# %%
grid = part["map"]
mass = grid.pivot_table(index="top_ref", columns="beta", values="top_from_ref")
shades = middle.pcolormesh(
    mass.columns, mass.index, mass.values, cmap="cividis", shading="nearest", vmin=0, vmax=1, rasterized=True
)
middle.set(
    yscale="log",
    xlabel=r"$\beta$ (dotted: $\beta=1$, which is $n\alpha_1+\alpha_2=1$)",
    ylabel="reference's mass on the better response",
    title="Two responses: where iterative best-of-n ends",
)
middle.grid(False)
below = grid[grid.beta < 1].pivot_table(index="top_ref", columns="beta", values="collapse_index")
middle.contour(
    below.columns, below.index, np.log(below.values), levels=[0], colors="w", linestyles="--", linewidths=1.6
)
style.note(middle, 0.42, 0.03, "dashed: the threshold of theory 3.9", color="w", fontsize=9, ha="center")
middle.axvline(1.0, color="w", linestyle=":", linewidth=1.2)
middle.text(0.08, 0.35, "collapse from anywhere", color="k", fontsize=9, va="center")
middle.text(0.60, 0.009, "two stable equilibria", color="w", fontsize=9, ha="center", va="center")
middle.text(1.20, 0.009, "one stable equilibrium", color="w", fontsize=9, ha="center", va="center")
fig.colorbar(shades, ax=middle, label="mass of the better response\nat the limit from the reference")

# %%
atoms = part["atomless"]
sizes = np.sort(atoms.responses.unique())
for m, colour in zip(sizes, plt.cm.viridis(np.linspace(0.05, 0.85, len(sizes))), strict=True):
    one = atoms[atoms.responses == m].sort_values("index")
    right.plot(one["index"], one.top_from_ref, color=colour, label=f"m = {m:g}")
right.axvline(1.0, color="0.3", label="threshold", **style.BOUND)
right.set(
    xlabel=r"$n\alpha_1+\alpha_2$",
    ylabel="mass on the best response",
    title="m equally likely responses: the limit",
)
right.legend(loc="upper left")

# %%
style.save(fig, "bandit_phase", style.table_path("bandit_phase"))
