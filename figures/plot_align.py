# %% [markdown]
# # A language model that learns
# SmolLM2-135M-Instruct on a proxy reward, on held-out prompts. Above: win rate against the model as it came and
# KL to it, four methods at equal tokens. Below left: win rate against the KL that is paid for it, along every run;
# dashed is the most that any policy can have at that KL (theory 3.12). Below right: reward by the score itself, for
# judges who are wrong in places. Shaded: 95% bootstrap intervals over prompts; a line is a seed.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("align")
table = table[table.win_rate.notna()]
runs = {name: [rows for _, rows in part.groupby("seed")] for name, part in table.groupby("run", sort=False)}
METHODS = ("WIND", "SPPO", "J-BOND", "best-of-n, likelihood")
JUDGES = ("WIND", "WIND, flipped", "WIND, reward model")

# %%
fig, axes = plt.subplots(2, 2, figsize=(7.6, 5.6))


def lines(axis, names, y, x="total_tokens", scale=1000, shade=True):
    for name in names:
        for i, rows in enumerate(runs.get(name, [])):
            line = style.method(name, label=name if i == 0 else None, markersize=3.5)
            axis.plot(rows[x] / scale, rows[y], **line)
            if shade:
                axis.fill_between(
                    rows[x] / scale, rows[y + "_low"], rows[y + "_high"], color=line["color"], alpha=0.1, lw=0
                )


lines(axes[0, 0], METHODS, "win_rate")
lines(axes[0, 1], METHODS, "held_kl")
lines(axes[1, 0], [name for name in runs if name not in JUDGES[1:]], "win_rate", "held_kl", 1, shade=False)
lines(axes[1, 1], JUDGES, "held_reward")
bound = table[table.held_kl > -1].sort_values("held_kl")
axes[1, 0].plot(bound.held_kl.clip(0), bound.possible_win_rate, color="0.3", label="the most at this KL", **style.BOUND)
for axis in axes[:, 0]:
    axis.set(ylabel="win rate against the reference", ylim=(0.4, 1.02))
axes[0, 1].set_ylabel("KL to the reference, nats")
axes[1, 1].set_ylabel("reward (sentiment score)")
for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
    axis.set_xlabel("thousand generated tokens")
axes[1, 0].set_xlabel("KL to the reference, nats")
axes[0, 0].axhline(0.5, color="0.5", linestyle=":", linewidth=1)
axes[1, 1].axhline(table.reference_reward.iloc[0], color="0.5", linestyle=":", linewidth=1)
for axis in axes.flat[1:]:
    axis.legend()

# %%
style.save(fig, "align", style.table_path("align"))
