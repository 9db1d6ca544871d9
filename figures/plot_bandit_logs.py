# %% [markdown]
# # A win rate and its logarithm
# Left: bias of the logarithm of a win rate estimated from K comparisons; lines: the exact sums of theory 7.6. Middle:
# standard deviations. Right: where learners end that follow the one or the other.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_logs")
rows, end = table[table.part == "estimate"], table[table.part == "equilibrium"]
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(10.8, 3.4))

# %%
for (w, one), colour in zip(
    rows.groupby("rate"), plt.cm.viridis(np.linspace(0, 0.85, rows.rate.nunique())), strict=True
):
    left.plot(one.opponents, one.log_bias, color=colour, marker="o", linestyle="", label=f"win rate {w:g}")
    left.plot(one.opponents, one.log_bias_exact, color=colour)
    middle.plot(one.opponents, one.log_deviation, color=colour, marker="o", label=f"log, {w:g}")
    middle.plot(one.opponents, one.deviation, color=colour, linestyle=":")
left.set(
    xscale="log", yscale="log", xlabel="comparisons K", ylabel=r"$E\log\hat w-\log w$", title="Bias of the logarithm"
)
middle.set(
    xscale="log",
    yscale="log",
    xlabel="comparisons K",
    ylabel="standard deviation",
    title="log (markers) and win rate (dotted)",
)
left.legend()
for name, one in end.groupby("learner", sort=False):
    look = style.method(name)
    right.plot(one.opponents, one.kl, label=name, **look)
    right.fill_between(one.opponents, one.kl_low, one.kl_high, color=look["color"], alpha=0.2, linewidth=0)
right.set(
    xscale="log",
    yscale="log",
    xlabel="opponents K",
    ylabel=r"$KL(\pi^*\,\|\,\pi)$ to its own equilibrium",
    title="What remains after learning",
)
right.legend()

# %%
style.save(fig, "bandit_logs", style.table_path("bandit_logs"))
