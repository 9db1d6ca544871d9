# %% [markdown]
# # Wrong answers
# True win rate against the reference after learning from a judge who flips answers, or who is systematically wrong
# about a share of the responses.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_robust")
table = table[table.world == table.world.iloc[0]]
fig, axes = plt.subplots(1, 2, figsize=(9, 4.8), sharey=True)
WORDS = {
    "WIND": "WIND, own draws",
    "WIND, all responses": "WIND, every response",
    "WIND, beta (1 - 2q)": "the same, β lowered to β(1 − 2q)",
    "SPPO": "SPPO (ignores β)",
    "J-BOND": "J-BOND (ignores β)",
    "best-of-n distillation": "best-of-4, likelihood (ignores β)",
}

# %%
for axis, kind, words in (
    (axes[0], "flip", "probability q that an answer is flipped"),
    (axes[1], "bias", "share of responses that the judge is too fond of"),
):
    rows = table[table.kind == kind]
    for name, one in rows.groupby("learner", sort=False):
        look = style.method(name, markersize=6)
        axis.plot(one.level, one.win_rate, label=WORDS.get(name, name), **look)
        axis.fill_between(one.level, one.low, one.high, color=look["color"], alpha=0.15, linewidth=0)
    judge = rows.groupby("level").judge_equilibrium.first()
    axis.plot(judge.index, judge, color="k", label="equilibrium of what the judge says", **style.BOUND)
    axis.axhline(
        rows.true_equilibrium.iloc[0], color="k", linestyle=":", linewidth=1.2, label="equilibrium of the truth"
    )
    axis.set(xlabel=words)
style.note(axes[0], 0.01, 0.68, "WIND, Nash-MD and REINFORCE lie on\nthe equilibrium of what the judge says")
axes[0].set(ylabel="true win rate against the reference", title="Noise")
axes[1].set(title="Systematic errors")
lines, names = axes[0].get_legend_handles_labels()
fig.legend(lines, names, loc="outside lower center", ncols=3, title="shaded: 95% interval of the median over seeds")

# %%
style.save(fig, "bandit_robust", style.table_path("bandit_robust"))
