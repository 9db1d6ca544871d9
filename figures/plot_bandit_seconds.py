# %% [markdown]
# # Distance to the equilibrium against time
# One core, no replicates; each learner at the best of the steps tried.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_seconds")
curve, end = table[table.part == "curve"], table[table.part == "reach"]
best = end.loc[end.groupby("learner", sort=False).final_kl.idxmin()]

# %%
fig, axis = plt.subplots(figsize=(6.6, 3.6))
for row in best.itertuples():
    one = curve[(curve.learner == row.learner) & (curve.step == row.step)]
    look = style.method(row.learner, markersize=3)
    axis.plot(one.seconds, one.kl, label=row.learner, **look)
    axis.fill_between(one.seconds, one.kl_low, one.kl_high, color=look["color"], alpha=0.15, linewidth=0)
axis.set(xscale="log", yscale="log", xlabel="seconds of learning", ylabel=r"$KL(\pi^*\,\|\,\pi_t)$, mean over contexts")
fig.legend(loc="outside right center")

# %%
style.save(fig, "bandit_seconds", style.table_path("bandit_seconds"))
