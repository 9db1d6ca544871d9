# %% [markdown]
# # Rates of WIND and extragradient
# Above left: the divergence to the equilibrium along four runs, bounds dashed; a linear rate is a straight line. Above
# right: steps until it is below 1e-10, and the steps that the bound promises. Below: beyond the largest proven step,
# the worst ratio of divergence and bound, over all games.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_rates")
rate, curve = table[table.part == "rate"], table[table.part == "curve"]
fig, axes = plt.subplot_mosaic([["left", "right"], ["below", "below"]], figsize=(9, 6.6), height_ratios=[1.1, 1])
left, right, below = axes["left"], axes["right"], axes["below"]

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
longest = rows[(rows.rule == "WIND") & (rows.step == "largest")].t.max()
for (rule, step), colour in shades.items():
    one = rows[(rows.rule == rule) & (rows.step == step)].sort_values("t")
    look = style.method(rule, color=colour, markersize=3)
    left.plot(one.t, one.kl, label=rf"{rule}, $\eta={words[step]}$", **look)
    left.plot(one.t, one.kl_bound, color=colour, **style.BOUND)
left.plot([], [], color="k", label="its bound (theory 5.2, 5.4)", **style.BOUND)
left.set(
    yscale="log",
    xlim=(0, 1.3 * longest),
    ylim=(1e-11, 60),
    xlabel="step $t$",
    ylabel=r"$KL(\pi^*\,\|\,\pi_t)$, worst context",
    title=rf"One game ({game}), $\beta={beta:g}$",
)
left.legend(loc="lower left", bbox_to_anchor=(0.14, 0.0))

# %%
for (rule, step), colour in shades.items():
    one = rate[(rate.rule == rule) & (rate.step == step) & (rate.game == game)].sort_values("beta")
    right.plot(one.beta, one.steps, label=rf"{rule}, $\eta={words[step]}$", **style.method(rule, color=colour))
    right.plot(one.beta, one.steps_bound, color=colour, **style.BOUND)
right.plot([], [], color="k", label="steps that the bound promises", **style.BOUND)
right.set(
    xscale="log",
    yscale="log",
    xlabel=r"$\beta$",
    ylabel="steps (none: not reached)",
    title=r"Steps until $KL(\pi^*\,\|\,\pi_t)\leq 10^{-10}$, same game",
)
right.legend(loc="upper right")

# %%
LOW, HIGH = 1e-3, 1e6
beyond = rate[rate.step.str.endswith("x largest")].copy()
beyond["multiple"] = beyond.step.str.split().str[0].astype(int)
rng = np.random.default_rng(0)
for shift, (rule, rows) in zip((0.88, 1.14), beyond.groupby("rule", sort=False), strict=False):
    for good, state in ((True, "converged"), (False, "did not converge")):
        one = rows[rows.converged.astype(bool) == good]
        look = style.method(rule, linestyle="", alpha=0.75, markersize=5)
        if not good:
            look["markerfacecolor"] = "none"
        if len(one):
            at = one.multiple * shift * np.exp(rng.uniform(-0.08, 0.08, len(one)))  # so that equal ones are seen
            below.plot(at, one.worst_ratio.clip(LOW, HIGH), label=f"{rule}, {state}", **look)
below.axhline(1.0, color="0.3", **style.BOUND)
right_of = 1.75 * beyond.multiple.max()
style.note(below, right_of, 1.4, "above this line the bound is broken", va="bottom")
below.axhspan(HIGH / 2, 10 * HIGH, color="0.92", zorder=0)
style.note(below, right_of, HIGH * 1.2, "a million and more", va="center")
below.axhspan(LOW / 10, 2 * LOW, color="0.92", zorder=0)
style.note(below, right_of, LOW / 1.2, "a thousandth and less", va="center")
multiples = np.sort(beyond.multiple.unique())
below.set(
    xscale="log",
    yscale="log",
    xlim=(1.35, multiples.max() * 9),
    ylim=(LOW / 3, 3 * HIGH),
    xticks=multiples,
    xticklabels=[f"{k:g}" for k in multiples],
    xlabel=r"step $\eta$ as a multiple of the largest proven one, $\eta_{\max}$",
    ylabel=r"largest $KL(\pi^*\,\|\,\pi_t)$ / bound",
    title="Beyond the theorem: one marker per game and β",
)
below.minorticks_off()
below.legend(loc="center right", bbox_to_anchor=(1, 0.72))

# %%
style.save(fig, "bandit_rates", style.table_path("bandit_rates"))
