# %% [markdown]
# # Rates of WIND and extragradient
# Left: the divergence to the equilibrium along two runs, bounds dashed. Middle: steps until it is below
# 1e-10, and the steps that the bound promises. Right: beyond the largest proven step, the worst ratio of
# divergence and bound.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_rates")
rate, curve = table[table.part == "rate"], table[table.part == "curve"]
fig, axes = plt.subplots(1, 3, figsize=(11.4, 3.6))
left, middle, right = axes

# %%
game, beta = "synthetic, intransitive", curve.beta.min()
rows = curve[(curve.game == game) & (curve.beta == beta)]
shades = {
    ("WIND", "beta/4"): style.SKY,
    ("WIND", "beta"): style.GREEN,
    ("WIND", "largest"): style.BLUE,
    ("extragradient", "largest"): style.RED,
}
words = {"beta/4": r"\beta/4", "beta": r"\beta", "largest": r"\eta_{\max}"}
for (rule, step), colour in shades.items():
    one = rows[(rows.rule == rule) & (rows.step == step)].sort_values("t")
    look = style.method(rule, color=colour, markersize=3)
    left.plot(one.t + 1, one.kl, label=rf"{rule}, $\eta={words[step]}$", **look)
    left.plot(one.t + 1, one.kl_bound, color=colour, **style.BOUND)
left.set(
    xscale="log",
    yscale="log",
    ylim=(1e-11, 60),
    xlabel="step $t+1$",
    ylabel=r"$KL(\pi^*\,\|\,\pi_t)$, worst context",
    title=rf"{game.capitalize()}, $\beta={beta:g}$ (bounds dashed)",
)
left.legend(loc="lower left")

# %%
for (rule, step), colour in shades.items():
    one = rate[(rate.rule == rule) & (rate.step == step) & (rate.game == game)].sort_values("beta")
    middle.plot(one.beta, one.steps, **style.method(rule, color=colour))
    middle.plot(one.beta, one.steps_bound, color=colour, **style.BOUND)
middle.set(
    xscale="log",
    yscale="log",
    xlabel=r"$\beta$",
    ylabel="steps (no marker: not within the limit)",
    title=r"Steps until $KL(\pi^*\,\|\,\pi_t)\leq 10^{-10}$, same game",
)

# %%
beyond = rate[rate.step.str.endswith("x largest")].copy()
beyond["multiple"] = beyond.step.str.split().str[0].astype(int)
for shift, (rule, rows) in zip((0.93, 1.07), beyond.groupby("rule", sort=False), strict=False):
    for good, fill in ((True, None), (False, "none")):
        one = rows[rows.converged.astype(bool) == good]
        look = style.method(rule, linestyle="", alpha=0.75)
        if fill:
            look["markerfacecolor"] = fill
        label = rule if good else f"{rule}, not converged"
        if len(one):
            right.plot(one.multiple * shift, one.worst_ratio.clip(1e-6, 1e12), label=label, **look)
right.axhline(1.0, color="0.3", **style.BOUND)
right.set_ylim(1e-7, 1e22)
multiples = np.sort(beyond.multiple.unique())
right.set(
    xscale="log",
    yscale="log",
    xticks=multiples,
    xticklabels=[f"{k:g}" for k in multiples],
    xlabel=r"$\eta/\eta_{\max}$",
    ylabel=r"largest $KL(\pi^*\,\|\,\pi_t)$ / bound, clipped at $10^{12}$",
    title="Beyond the theorem, all games",
)
right.minorticks_off()
right.legend(loc="upper left")

# %%
style.save(fig, "bandit_rates", style.table_path("bandit_rates"))
