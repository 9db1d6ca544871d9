# %% [markdown]
# # Distance to the equilibrium against time
# One core, no replicates; each learner at the best of the steps tried, the nearest first in the legends. Left: rules
# with a pull to the reference, and WIND's variants. Right: the others.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_seconds")
curve, end = table[table.part == "curve"], table[table.part == "reach"]
best = end.loc[end.groupby("learner", sort=False).final_kl.idxmin()].sort_values("final_kl")

# %%
OTHERS = ("SPPO", "J-BOND", "best-of-n distillation", "iterative BOND", "REINFORCE", "REINFORCE, self-play")
fig, axes = plt.subplots(1, 2, figsize=(9, 5.2), sharey=True)
for row in best.itertuples():
    axis = axes[int(row.learner in OTHERS)]
    one = curve[(curve.learner == row.learner) & (curve.step == row.step)]
    look = style.method(row.learner, markersize=5)
    axis.plot(one.seconds, one.kl, label=row.learner, **look)
    axis.fill_between(one.seconds, one.kl_low, one.kl_high, color=look["color"], alpha=0.12, linewidth=0)
for axis, words in zip(axes, ("WIND and other rules with a pull", "SPPO, J-BOND, best-of-n, REINFORCE"), strict=True):
    axis.set(xscale="log", yscale="log", ylim=(1e-7, 10), xlabel="seconds of learning, one core", title=words)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower left", title="from nearest to farthest at the end")
axes[0].set_ylabel(r"$KL(\pi^*\,\|\,\pi)$ to the equilibrium, mean over contexts")
style.note(axes[1], 0.98, 0.98, "shaded: 95% interval over seeds", transform=axes[1].transAxes, ha="right", va="top")

# %%
style.save(fig, "bandit_seconds", style.table_path("bandit_seconds"))
