# %% [markdown]
# # A language model that learns
# SmolLM2-135M-Instruct by WIND. Left: the win rate against the model as it came, on held-out prompts (dotted: 1/2).
# Middle: the reward of fresh draws, on training and on held-out prompts (dotted: the reference). Right: KL to the
# reference that is paid for it. Shaded: 95% bootstrap intervals over prompts.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("align")
judged = table[table.win_rate.notna()]

# %%
fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.7))
line = style.method("WIND", label="held-out")
train = {"color": "0.55", "marker": ".", "linewidth": 1, "label": "training, before the round"}
for axis, name, seen in zip(axes, ("win_rate", "held_reward", "held_kl"), (None, "reward", "kl"), strict=True):
    axis.plot(judged["round"], judged[name], **line)
    low, high = judged[name + "_low"], judged[name + "_high"]
    axis.fill_between(judged["round"], low, high, color=line["color"], alpha=0.15, linewidth=0)
    if seen:
        axis.plot(table["round"] - 1, table[seen], **train)
    axis.set(xlabel="round")
axes[0].axhline(0.5, color="0.5", linestyle=":", linewidth=1)
axes[1].axhline(table.reference_reward.dropna().iloc[0], color="0.5", linestyle=":", linewidth=1)
axes[0].set(ylabel="win rate against the reference", ylim=(0, 1))
axes[1].set_ylabel("reward (sentiment proxy)")
axes[2].set_ylabel("KL to the reference, nats")
axes[1].legend(loc="lower right")

# %%
style.save(fig, "align", style.table_path("align"))
