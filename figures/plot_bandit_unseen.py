# %% [markdown]
# # Contexts that were never drawn
# Log-linear policies learned by sampled WIND on some contexts, graded there and on 200 others. Dashed: the class at its
# best on the same contexts.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_unseen")
rows = table[table.risk == "squared"]
worlds = list(dict.fromkeys(rows.world))
fig, axes = plt.subplots(1, len(worlds), figsize=(9, 4.4), squeeze=False, sharey=True)
TITLES = {"featured": "made-up rewards, 32 features", "digits": "handwritten digits, 130 features"}
WORDS = {"seen": "the contexts it learned on", "unseen": "200 others"}

# %%
for axis, world in zip(axes[0], worlds, strict=True):
    for part, colour in (("seen", style.BLUE), ("unseen", style.RED)):
        one = rows[(rows.world == world) & (rows.part == part)]
        axis.plot(one.contexts, one.kl, color=colour, marker="o", label=f"WIND, on {WORDS[part]}")
        axis.fill_between(one.contexts, one.kl_low, one.kl_high, color=colour, alpha=0.2, linewidth=0)
        best = one.kl_best.where(one.kl_best > 1e-3)
        axis.plot(one.contexts, best, color=colour, label="best policy of the class there", **style.BOUND)
    start = rows[(rows.world == world) & (rows.part == "unseen")].kl_start.iloc[0]
    axis.axhline(start, color="0.3", linestyle=":", linewidth=1.2, label="reference, before learning")
    axis.set(xscale="log", yscale="log", xlabel="contexts to learn on", title=TITLES[world])
    ticks = sorted(rows.contexts.unique())
    axis.set_xticks(ticks, [f"{n:g}" for n in ticks])
    axis.minorticks_off()
axes[0, 0].set_ylabel(r"$KL(\pi^*\,\|\,\pi)$ to the equilibrium")
lines, names = axes[0, 0].get_legend_handles_labels()
fig.legend(
    lines,
    names,
    loc="outside lower center",
    ncols=3,
    title="a dashed line that is missing lies below 0.001; shaded: 95% interval over seeds",
)

# %%
style.save(fig, "bandit_unseen", style.table_path("bandit_unseen"))
