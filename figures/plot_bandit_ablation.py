# %% [markdown]
# # beta by eta
# Left: steps that exact WIND takes to a divergence of 1e-6. Right: where sampled WIND ends. The dashed line is the
# largest step of theory 5.2, below which the rate is proven; the solid one is the step at which the equilibrium stops
# attracting (theory 5.10), computed from it and not from runs. Rewards have none here: every step attracts.

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np
import style
from matplotlib.colors import LogNorm
from matplotlib.patches import Patch

import windgames as wg

sys.path.insert(0, str(style.ROOT / "benchmarks"))
from environments import rock_paper_scissors, synthetic

table = style.read("bandit_ablation")
worlds = list(dict.fromkeys(table.world))
fig, axes = plt.subplots(len(worlds), 2, figsize=(9, 3.2 * len(worlds) + 0.5), squeeze=False, sharex=True)


# %%
def threshold(world, beta):
    """Return the step beyond which the equilibrium of some context repels."""
    bandit = synthetic(8, 20, ties=False)
    preference, ref = rock_paper_scissors() if world != "reward" else (wg.RewardPreference(bandit.reward), bandit.ref)
    star = wg.equilibrium(wg.WinRateGame(preference, ref, beta))
    frequency = wg.bounds.tangent_frequencies(preference.matrix(), star.policy)[..., 0]
    return float(np.min(wg.bounds.local_max_step(beta, frequency)))


# %%
for row, world in zip(axes, worlds, strict=True):
    rows = table[table.world == world]
    edge = rows.largest.iloc[0] / rows.beta.iloc[0]
    betas = np.geomspace(rows.beta.min(), rows.beta.max(), 120)
    local = np.array([threshold(world, beta) / beta for beta in betas])
    for axis, column, words, scale in (
        (row[0], "exact_steps", "exact WIND", "steps until $KL(\\pi^*\\,\\|\\,\\pi_t)\\leq 10^{-6}$"),
        (row[1], "sampled_kl", "WIND from samples", r"$KL(\pi^*\,\|\,\pi)$ at the end ($10^{-6}$: or less)"),
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
        axis.axhline(edge, color="w", linewidth=3)
        axis.axhline(edge, color="k", linestyle="--", linewidth=1.4)
        limits = axis.get_ylim()
        if column == "exact_steps":
            axis.plot(betas, local, color="w", linewidth=4, marker="")
            axis.plot(betas, local, color=style.RED, linewidth=2, marker="")
        axis.set_ylim(limits)
        axis.set(xscale="log", yscale="log", ylabel=r"step $\eta$, as a multiple of $\beta$", title=f"{world}: {words}")
        axis.set_facecolor("w")
        axis.grid(False)
        if np.isnan(grid.values).any():
            axis.patch.set(hatch="///", edgecolor="0.75")
        fig.colorbar(shades, ax=axis, label=scale)
for axis in axes[-1]:
    axis.set(xlabel=r"$\beta$")
line = plt.Line2D(
    [], [], color="k", linestyle="--", label=r"largest step of theory 5.2, $4\beta/L^2$: below it, proven"
)
attracts = plt.Line2D(
    [], [], color=style.RED, linewidth=2, label="local threshold of theory 5.10: above it, the equilibrium repels"
)
hatched = Patch(facecolor="w", edgecolor="0.75", hatch="///", label="not reached within the steps that were tried")
fig.legend(handles=[line, attracts, hatched], loc="outside lower center", ncols=2)

# %%
style.save(fig, "bandit_ablation", style.table_path("bandit_ablation"))
