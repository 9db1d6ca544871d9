# %% [markdown]
# # The paper's experiment on real data
# SmolLM2-135M-Instruct on questions of HH-RLHF and UltraFeedback, held-out prompts, along every run: the win rate
# against the model as it came that the proxy judge sees, which the training followed, and the one that the gold judge
# sees, against the KL divergence that is paid for it. Dashed: the most that any policy can have there (theory 3.12).

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

from windgames.continuum import largest_win_rate

table = style.read("paper_runs")
runs = table[table.run != "reference"]
other = table[table.run == "reference"].iloc[0]
JUDGES = {"proxy": "the proxy judge, which trains", "gold": "the gold judge, which does not"}

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
for axis, (judge, title) in zip(axes, JUDGES.items(), strict=True):
    for (name, seed), rows in runs.groupby(["run", "seed"], sort=False):
        x, y = (np.r_[0.0, rows.kl.clip(0)], np.r_[0.5, rows[f"{judge}_win_rate"]])
        low, high = (rows[f"{judge}_win_rate_{end}"] for end in ("low", "high"))
        label = {"label": name} if seed == runs[runs.run == name].seed.min() else {}
        look = style.method(name, markersize=6, **label)
        axis.plot(x, y, **look)
        bars = [y[1:] - low, high - y[1:]]
        axis.errorbar(x[1:], y[1:], bars, fmt="none", color=look["color"], alpha=0.4, capsize=2)
    grid = np.linspace(0, max(1.0, 1.1 * runs.kl.max()), 200)
    axis.plot(grid, largest_win_rate(grid), color="k", label="the most at this KL", **style.BOUND)
    axis.axhspan(other[f"{judge}_win_rate_low"], other[f"{judge}_win_rate_high"], color="0.9", zorder=0)
    axis.set(xlabel="KL to the model as it came, nats", title=title, ylim=(0.3, 1.0))
axes[0].set_ylabel("win rate against the model as it came")
style.note(axes[1], grid[-1], other.gold_win_rate_low, "the model as it came, other draws", ha="right", va="bottom")
axes[0].legend(loc="lower right", ncols=2)
fig.supxlabel("bars and grey: 95% bootstrap intervals over prompts", fontsize=8)

# %%
style.save(fig, "paper", style.table_path("paper_runs"))
