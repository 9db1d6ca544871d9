# %% [markdown]
# # Where iterative best-of-n ends
# Left: total variation from the limit to the log-win-rate equilibria, by operator. Right: with the exact
# operator the gap to the weak-ties equilibrium vanishes with the largest atom.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_bon")
limit, grain = table[table.part == "limit"], table[(table.part == "atoms") & (table.form == "exact")]

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=[1.25, 1])
draws = np.sort(limit.n.unique())
for form, column, look, words in (
    ("power", "tv_weak", style.method("best-of-n, power form"), "power form, to the one with weak ties"),
    ("exact", "tv_weak", style.method("best-of-n, exact"), "exact operator, to the one with weak ties"),
    (
        "exact",
        "tv_half",
        style.method("best-of-n, exact", markerfacecolor="none"),
        "exact operator, to the one with half ties",
    ),
):
    rows = limit[limit.form == form]
    shift = {"tv_weak": -0.12, "tv_half": 0.12}[column] if form == "exact" else 0.0
    at = np.searchsorted(draws, rows.n) + shift
    left.plot(at, np.maximum(rows[column], 1e-16), linestyle="", label=words, **look)
left.axhspan(1e-17, 1e-12, color="0.93", zorder=0)
left.text(len(draws) - 0.75, 2e-13, "rounding errors", ha="right", va="center", color="0.4", fontsize=8)
left.set(
    yscale="log",
    ylim=(1e-17, 8),
    xticks=range(len(draws)),
    xticklabels=[f"{n:g}" for n in draws],
    xlabel="$n$ of best-of-$n$",
    ylabel="total variation, limit to log-win-rate equilibrium",
    title="Limits in every environment and mixing (one marker each)",
)
left.legend(loc="center left", bbox_to_anchor=(0.0, 0.52))

# %%
for (n, rows), colour in zip(grain.groupby("n"), (style.ORANGE, style.BLUE, style.PINK), strict=False):
    rows = rows.sort_values("largest_atom")
    right.plot(rows.largest_atom, rows.tv_weak, marker="v", color=colour, label=f"$n={n:g}$")
x = np.array([grain.largest_atom.min(), grain.largest_atom.max()])
right.plot(x, 0.8 * grain.tv_weak.min() * (x / x[0]) ** 0.75, color="0.4", linestyle=":", label="a slope of 3/4")
right.set(
    xscale="log",
    yscale="log",
    xlabel="largest mass of a response under the reference",
    ylabel="total variation, exact limit to weak ties",
    title=rf"The gap closes as atoms shrink ($\beta={grain.beta.iloc[0]:g}$)",
)
right.legend()

# %%
style.save(fig, "bandit_bon", style.table_path("bandit_bon"))
