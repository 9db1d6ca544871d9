# %% [markdown]
# # Diversity
# Effective support (the exponential of the entropy) and the mass of the best response, along the way. Left: what beta
# does to WIND. Middle: learners that nothing pulls back. Right: iterative best-of-4 in its exact form, on both sides of
# the threshold.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_diversity")
fig, axes = plt.subplots(2, 3, figsize=(9, 5.6), sharey="row", sharex="col")
wind = table[table.learner.str.startswith("WIND")]
exact = table[table.learner.str.startswith("iterative")]
others = table[~table.index.isin([*wind.index, *exact.index])]


# %%
def both(column, x, rows, label, **look):
    axes[0, column].plot(rows[x], rows.effective_support, label=label, **look)
    axes[1, column].plot(rows[x], rows.top_mass, **look)


for (beta, rows), colour in zip(wind.groupby("beta"), plt.cm.viridis(np.linspace(0, 0.85, 8)[::2]), strict=False):
    both(0, "queries", rows[rows.queries > 0], rf"$\beta={beta:g}$", color=colour)
for name, rows in others.groupby("learner", sort=False):
    look = style.method(name, markersize=4, markevery=5)
    both(1, "queries", rows[rows.queries > 0], {"REINFORCE, self-play": f"{name} (has a pull)"}.get(name, name), **look)
shades = plt.cm.plasma(np.linspace(0, 0.8, exact.learner.nunique()))
for (name, rows), colour in zip(exact.groupby("learner", sort=False), shades, strict=True):
    rows = rows.assign(round=rows["round"] + 1)
    factor = float(name.split(", ")[1])
    words = rf"$n\alpha_1={factor:g}$" + (" (contracts)" if factor < 1 else " (may collapse)")
    both(2, "round", rows, words, color=colour)
titles = ("WIND, by its price β", r"other learners, $\beta=0.1$ where used", "iterative best-of-4, no samples")
for axis, words in zip(axes[0], titles, strict=True):
    axis.set(xscale="log", title=words, yscale="log", ylim=(0.9, 27))
    axis.axhline(20, color="0.5", linestyle=":", linewidth=1)
style.note(axes[0, 0], 0.98, 0.985, "dotted: all 20 alike", transform=axes[0, 0].transAxes, ha="right", va="top")
for axis, words in zip(axes[1], ("comparisons per seed", "comparisons per seed", "round + 1"), strict=True):
    axis.set(xscale="log", xlabel=words, ylim=(-0.02, 1.75), yticks=np.linspace(0, 1, 6))
for above, below in axes.T:
    below.legend(*above.get_legend_handles_labels(), loc="upper left")
axes[0, 0].set(ylabel="effective support\n(exp of entropy, of 20 responses)")
axes[0, 0].set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
axes[0, 0].minorticks_off()
axes[1, 0].set(ylabel="mass of the best response")

# %%
style.save(fig, "bandit_diversity", style.table_path("bandit_diversity"))
