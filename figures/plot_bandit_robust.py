# %% [markdown]
# # Wrong answers
# True win rate against the reference after learning from a judge who flips answers, or who is systematically wrong
# about a share of the responses. Dotted: the true equilibrium; dashed: the equilibrium of the judge's preference.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_robust")
table = table[table.world == table.world.iloc[0]]
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.5), sharey=True)

# %%
for axis, kind, words in (
    (axes[0], "flip", "probability of a flipped answer"),
    (axes[1], "bias", "share of responses judged too well"),
):
    rows = table[table.kind == kind]
    for name, one in rows.groupby("learner", sort=False):
        look = style.method(name)
        axis.plot(one.level, one.win_rate, label=name, **look)
        axis.fill_between(one.level, one.low, one.high, color=look["color"], alpha=0.15, linewidth=0)
    judge = rows.groupby("level").judge_equilibrium.first()
    axis.plot(judge.index, judge, color="0.2", label="judge's equilibrium", **style.BOUND)
    axis.axhline(rows.true_equilibrium.iloc[0], color="0.2", linestyle=":", linewidth=1.0, label="true equilibrium")
    axis.set(xlabel=words)
axes[0].set(ylabel="true win rate against the reference")
lines, names = axes[0].get_legend_handles_labels()
fig.legend(lines, names, loc="outside right center")

# %%
style.save(fig, "bandit_robust", style.table_path("bandit_robust"))
