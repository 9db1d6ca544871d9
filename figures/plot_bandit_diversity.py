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
fig, axes = plt.subplots(2, 3, figsize=(10.6, 5.0), sharey="row")
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
    both(1, "queries", rows[rows.queries > 0], name, **style.method(name, markersize=3, markevery=5))
shades = plt.cm.plasma(np.linspace(0, 0.8, exact.learner.nunique()))
for (name, rows), colour in zip(exact.groupby("learner", sort=False), shades, strict=True):
    rows = rows.assign(round=rows["round"] + 1)
    both(2, "round", rows, rf"$n\alpha_1={float(name.split(', ')[1]):g}$", color=colour)
for axis, words in zip(axes[0], ("WIND", "others", "iterative best-of-4, exact"), strict=True):
    axis.set(xscale="log", title=words, yscale="log")
    axis.legend()
for axis, words in zip(axes[1], ("queries per seed", "queries per seed", "round + 1"), strict=True):
    axis.set(xscale="log", xlabel=words)
axes[0, 0].set(ylabel="effective support")
axes[0, 0].set_yticks([1, 2, 5, 10, 15], ["1", "2", "5", "10", "15"])
axes[0, 0].minorticks_off()
axes[1, 0].set(ylabel="mass of the best response")

# %%
style.save(fig, "bandit_diversity", style.table_path("bandit_diversity"))
