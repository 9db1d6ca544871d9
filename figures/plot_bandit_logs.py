# %% [markdown]
# # A win rate and its logarithm
# Left: bias of the logarithm of a win rate that is estimated from K comparisons. Middle: standard deviations of both.
# Right: where learners end that follow the one or the other.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_logs")
rows, end = table[table.part == "estimate"], table[table.part == "equilibrium"]
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.9))

# %%
shades = plt.cm.viridis(np.linspace(0, 0.85, rows.rate.nunique()))
for (w, one), colour in zip(rows.groupby("rate"), shades, strict=True):
    left.plot(one.opponents, one.log_bias, color=colour, marker="o", linestyle="", label=f"$w={w:g}$, simulated")
    left.plot(one.opponents, one.log_bias_exact, color=colour)
    middle.plot(one.opponents, one.log_deviation, color=colour, marker="o", label=rf"$\log\hat w$, $w={w:g}$")
    middle.plot(one.opponents, one.deviation, color=colour, linestyle=":")
left.plot([], [], color="k", label="exact sum (theory 7.6)")
middle.plot([], [], color="k", linestyle=":", label=r"$\hat w$ itself, same colours")
left.set(ylabel=r"bias $E\log\hat w-\log w$", ylim=(3e-6, 20), title=r"Bias of $\log\hat w$ ($\hat w$ has none)")
middle.set(ylabel="standard deviation", ylim=(0.008, 30), title="Standard deviation of both")
for name, one in end.groupby("learner", sort=False):
    look = style.method(name)
    words = {"WIND": r"WIND: uses $\hat w$", "iterative BOND": r"iterative BOND: uses $\log\hat w$"}[name]
    right.plot(one.opponents, one.kl, label=words, **look)
    right.fill_between(one.opponents, one.kl_low, one.kl_high, color=look["color"], alpha=0.2, linewidth=0)
right.set(
    ylabel=r"$KL(\pi^*\,\|\,\pi)$ to the learner's own equilibrium",
    ylim=(1e-6, 10),
    title="What is left after learning",
)
for axis in (left, middle, right):
    axis.set(xscale="log", yscale="log", xlabel=r"comparisons $K$ behind each $\hat w$")
    axis.legend(loc="lower left" if axis is left else "upper right")
style.note(right, 0.03, 0.03, "shaded: 95% interval over seeds", transform=right.transAxes)

# %%
style.save(fig, "bandit_logs", style.table_path("bandit_logs"))
