# %% [markdown]
# # Distance to the equilibrium against queries
# The median over seeds and its 95% bootstrap interval, each learner at the best of the steps tried; the finite-time
# bound of theory 7.7 dashed.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_queries")
curve, bound = table[table.part == "curve"], table[table.part == "bound"]
final = table[(table.part == "reach") & (table.threshold == table.threshold.min())]
best = final.loc[final.groupby(["world", "learner"], sort=False).final_kl.idxmin()]
worlds = list(dict.fromkeys(table.world))

# %%
fig, axes = plt.subplots(1, len(worlds), figsize=(3.3 * len(worlds) + 1.5, 3.6), sharey=True, squeeze=False)
for axis, world in zip(axes[0], worlds, strict=True):
    for row in best[best.world == world].itertuples():
        one = curve[(curve.world == world) & (curve.learner == row.learner) & (curve.step == row.step)]
        one = one[one.queries > 0]
        look = style.method(row.learner, markersize=3, markevery=4)
        axis.plot(one.queries, one.kl, label=row.learner, **look)
        axis.fill_between(one.queries, one.kl_low, one.kl_high, color=look["color"], alpha=0.2, linewidth=0)
    for step, rows in bound[(bound.world == world) & (bound.queries > 0)].groupby("step"):
        if step == bound.step.min():
            axis.plot(rows.queries, rows.kl, color=style.METHODS["WIND, all responses"][0], **style.BOUND)
    axis.set(xscale="log", yscale="log", xlabel="queries per seed", title=world)
axes[0, 0].set(ylabel=r"$KL(\pi^*\,\|\,\pi_t)$, mean over contexts")
lines, names = axes[0, 0].get_legend_handles_labels()
fig.legend(lines, names, loc="outside right center")

# %%
style.save(fig, "bandit_queries", style.table_path("bandit_queries"))
