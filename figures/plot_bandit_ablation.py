# %% [markdown]
# # beta by eta
# Left: steps that exact WIND takes to a divergence of 1e-6 (blank: not within the limit). Right: where sampled WIND
# ends. The line is the largest step of theory 5.2; below it the rate is proven.

# %%
import matplotlib.pyplot as plt
import style
from matplotlib.colors import LogNorm

table = style.read("bandit_ablation")
worlds = list(dict.fromkeys(table.world))
fig, axes = plt.subplots(len(worlds), 2, figsize=(8.6, 2.9 * len(worlds)), squeeze=False, sharex=True)

# %%
for row, world in zip(axes, worlds, strict=True):
    rows = table[table.world == world]
    edge = rows.largest.iloc[0] / rows.beta.iloc[0]
    for axis, column, words in (
        (row[0], "exact_steps", "steps of exact WIND"),
        (row[1], "sampled_kl", r"final $KL(\pi^*\,\|\,\pi)$, sampled"),
    ):
        grid = rows.pivot_table(index="ratio", columns="beta", values=column, dropna=False)
        low = 1 if column == "exact_steps" else 1e-6
        shades = axis.pcolormesh(
            grid.columns,
            grid.index,
            grid.values.clip(low),
            norm=LogNorm(vmin=low, vmax=float(grid.max().max())),
            cmap="cividis",
            shading="nearest",
            rasterized=True,
        )
        axis.axhline(edge, color="w", linestyle="--", linewidth=1.4)
        axis.set(xscale="log", yscale="log", ylabel=r"$\eta/\beta$", title=f"{world}: {words}")
        axis.grid(False)
        fig.colorbar(shades, ax=axis)
for axis in axes[-1]:
    axis.set(xlabel=r"$\beta$")

# %%
style.save(fig, "bandit_ablation", style.table_path("bandit_ablation"))
