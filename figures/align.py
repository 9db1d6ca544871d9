# %% [markdown]
# # A language model that learns
# SmolLM2-135M-Instruct on a proxy reward. Left: the win rate against the model as it came, on held-out prompts
# (dotted: 1/2).
# Middle: the reward of fresh draws on held-out prompts (dotted: the reference; thin: a round's own training prompts).
# Right: KL to the reference that is paid for it. Shaded: 95% bootstrap intervals over prompts.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("align")

# %%
fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.7))
for method, rows in table.groupby("method", sort=False):
    judged, line = rows[rows.win_rate.notna()], style.method(method, label=method)
    for axis, name, seen in zip(axes, ("win_rate", "held_reward", "held_kl"), (None, "reward", "kl"), strict=True):
        x = judged.total_tokens / 1000
        axis.plot(x, judged[name], **line)
        axis.fill_between(x, judged[name + "_low"], judged[name + "_high"], color=line["color"], alpha=0.15, lw=0)
        if seen:  # what a round says of the policy before it
            axis.plot((rows.total_tokens - rows.tokens) / 1000, rows[seen], color=line["color"], lw=0.7, alpha=0.6)
        axis.set_xlabel("thousand generated tokens")
axes[0].axhline(0.5, color="0.5", linestyle=":", linewidth=1)
axes[1].axhline(table.reference_reward.dropna().iloc[0], color="0.5", linestyle=":", linewidth=1)
axes[0].set(ylabel="win rate against the reference", ylim=(0, 1))
axes[1].set_ylabel("reward (sentiment proxy)")
axes[2].set_ylabel("KL to the reference, nats")
axes[2].legend(loc="upper left")

# %%
style.save(fig, "align", style.table_path("align"))
