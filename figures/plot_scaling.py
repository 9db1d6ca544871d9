# %% [markdown]
# # Memory and time of a round against its prompts
# Left: the process's own memory while a round is sampled, judged, scored and trained on, less that before it began.
# Right: seconds of the parts against prompts per round.

# %%
import matplotlib.pyplot as plt
import style

memory, table = style.read("scaling_memory"), style.read("scaling")
table = table[table.varied == "prompts"].sort_values("prompts")
PARTS = {"sampling": style.BLUE, "scoring": style.GREEN, "training": style.RED, "judging": style.ORANGE}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
for colour, (prompts, one) in zip(
    (style.SKY, style.ORANGE, style.GREEN, style.BLUE), memory.groupby("prompts"), strict=False
):
    share = (one.seconds - one.seconds.min()) / (one.seconds.max() - one.seconds.min())
    left.plot(100 * share, one.mib_own - one.mib_own.iloc[0], color=colour, label=f"{prompts:,} prompts")
left.set(xlabel="share of the round's time, %", ylabel="memory of the round, MiB", ylim=(0, None))
left.legend(title=f"x {memory.draws.iloc[0]} responses")
for name, colour in PARTS.items():
    right.plot(table.prompts, table[f"seconds_{name}"], color=colour, marker="o", label=name)
right.set(xscale="log", yscale="log", xlabel="prompts per round", ylabel="seconds")
right.legend()

# %%
style.save(fig, "scaling", style.table_path("scaling_memory"))
