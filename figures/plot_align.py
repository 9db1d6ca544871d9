# %% [markdown]
# # A language model that learns
# SmolLM2-135M-Instruct on a proxy reward, on held-out prompts. Above: win rate against the model as it came and KL to
# it, four methods at equal tokens, the mean of their seeds. Below left: win rate against the KL that is paid for it,
# along every run; dashed is the most that any policy can have at that KL (theory 3.12). Below right: reward by the
# score itself, for judges who are wrong in places.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("align")
table = table[table.win_rate.notna()]
METHODS = ("WIND", "SPPO", "J-BOND", "best-of-n, likelihood")
JUDGES = {"WIND": "the score itself", "WIND, flipped": "a quarter wrong", "WIND, reward model": "a reward model"}
known = [name for name in METHODS if (table.run == name).any()]
fig, ((win, kl), (both, judges)) = plt.subplots(2, 2, figsize=(9, 7.4))


# %%
def average(name, y):
    """Return tokens, the mean over the seeds, and the range of the seeds' intervals."""
    rows = table[table.run == name].assign(check=lambda t: t.groupby(["seed"]).cumcount())
    of = rows.groupby("check")
    return of.total_tokens.mean() / 1000, of[y].mean(), of[y + "_low"].min(), of[y + "_high"].max()


def lines(axis, names, y, words=None):
    for name in names:
        tokens, mean, low, high = average(name, y)
        look = style.method(name, label=(words or {}).get(name, name), markersize=6)
        axis.plot(tokens, mean, **look)
        axis.fill_between(tokens, low, high, color=look["color"], alpha=0.12, linewidth=0)
    axis.set_xlabel("thousand generated tokens")


lines(win, known, "win_rate")
lines(kl, known, "held_kl")
lines(judges, [name for name in JUDGES if (table.run == name).any()], "held_reward", JUDGES)
win.axhline(0.5, color="0.4", linestyle=":", linewidth=1.2)
style.note(win, win.get_xlim()[1], 0.487, "the model as it came", ha="right", va="top")
win.set(ylabel="win rate against the model as it came", ylim=(0.4, 1.02), title="Four methods at equal tokens")
kl.set_yscale("symlog", linthresh=0.3, linscale=0.5)
kl.set_yticks([0, 0.3, 1, 3, 10, 30], ["0", "0.3", "1", "3", "10", "30"])
kl.set(ylabel="KL to the model as it came, nats", title="What they pay (linear below 0.3 nats)")
kl.legend(loc="upper left")

# %%
for name in dict.fromkeys(table.run):
    if name not in tuple(JUDGES)[1:]:
        rows = table[(table.run == name) & (table.seed == table[table.run == name].seed.min())]
        both.plot(rows.held_kl, rows.win_rate, **style.method(name, label=name, markersize=6))
bound = table[table.held_kl > -1].sort_values("held_kl")
both.plot(
    bound.held_kl.clip(0), bound.possible_win_rate, color="k", label="the most at this KL (theory 3.12)", **style.BOUND
)
both.set_xscale("symlog", linthresh=0.3, linscale=0.5)
both.set_xticks([0, 0.3, 1, 3, 10, 30], ["0", "0.3", "1", "3", "10", "30"])
both.set(
    xlabel="KL to the model as it came, nats (linear below 0.3)",
    ylabel="win rate against the model as it came",
    ylim=(0.25, 1.02),
    title="What the KL buys, along each run (first seed)",
)
both.legend(loc="lower right", fontsize=7)
judges.axhline(table.reference_reward.iloc[0], color="0.4", linestyle=":", linewidth=1.2)
style.note(
    judges, judges.get_xlim()[1], table.reference_reward.iloc[0] - 0.01, "the model as it came", ha="right", va="top"
)
judges.set(ylabel="reward (sentiment score, −1 to 1)", title="WIND, judged while it trains by")
judges.legend(loc="upper left")
fig.supxlabel("held-out prompts; shaded: 95% bootstrap intervals over prompts, widest of the seeds", fontsize=8)
assert np.isfinite(table.win_rate).all()

# %%
style.save(fig, "align", style.table_path("align"))
