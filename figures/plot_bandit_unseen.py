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
fig, axes = plt.subplots(1, len(worlds), figsize=(4.4 * len(worlds), 3.4), squeeze=False)

# %%
for axis, world in zip(axes[0], worlds, strict=True):
    for part, colour in (("seen", style.BLUE), ("unseen", style.RED)):
        one = rows[(rows.world == world) & (rows.part == part)]
        axis.plot(one.contexts, one.kl, color=colour, marker="o", label=part)
        axis.fill_between(one.contexts, one.kl_low, one.kl_high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(one.contexts, one.kl_best.clip(1e-3), color=colour, **style.BOUND)
    start = rows[(rows.world == world) & (rows.part == "unseen")].kl_start.iloc[0]
    axis.axhline(start, color="0.4", linestyle=":", linewidth=1, label="reference")
    axis.set(xscale="log", yscale="log", xlabel="contexts to learn on", ylabel=r"$KL(\pi^*\,\|\,\pi)$", title=world)
    axis.legend()

# %%
style.save(fig, "bandit_unseen", style.table_path("bandit_unseen"))
