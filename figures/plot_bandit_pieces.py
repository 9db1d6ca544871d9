# %% [markdown]
# # The pieces of the finite-time guarantee
# Left: what a step's error consists of in a log-linear class of dimension d. Middle: the divergence, the bound with the
# errors as they were, and the bound from coverage (theory 7.8). Right: generalisation of one step beside the stability
# bound (theory 7.9).

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_pieces")
runs, rows = table[table.part == "sum"], table[table.part == "generalise"].sort_values("contexts")
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 4.1))

# %%
shades = plt.cm.viridis(np.linspace(0, 0.85, runs.dimension.nunique()))
for (d, one), colour in zip(runs.groupby("dimension"), shades, strict=True):
    left.plot(one["round"], one.realisability, color=colour, label=f"$d={d:g}$")
    left.plot(one["round"], one.estimation, color=colour, linestyle=":")
    middle.plot(one["round"], one.kl, color=colour, label=f"$d={d:g}$")
    middle.plot(one["round"], one.bound_exact_cross, color=colour, **style.BOUND)
    middle.plot(one["round"], one.bound_coverage, color=colour, linestyle="-.", linewidth=1)
STYLES = (
    (left, "-", "class cannot fit it (realisability)"),
    (left, ":", "samples (estimation)"),
    (middle, "-", "measured"),
    (middle, "--", "bound, errors as they were (5.2)"),
    (middle, "-.", "bound from coverage (7.8)"),
)
for axis, line, words in STYLES:
    axis.plot([], [], color="k", linestyle=line, label=words)
left.set(ylim=(4e-3, 3), ylabel="error of a step's win rates (rms)", title="What a step gets wrong")
middle.set(ylim=(4e-3, 300), ylabel=r"$KL(\pi^*\,\|\,\pi_t)$", title="and what that adds up to")
for axis in (left, middle):
    axis.set(yscale="log", xlabel="round $t$")
    axis.legend(loc="upper right")
right.errorbar(
    rows.contexts,
    rows.gap,
    yerr=2 * rows.gap_error,
    color=style.BLUE,
    marker="o",
    label="measured, ± 2 standard errors",
)
right.plot(rows.contexts, rows.bound, color="k", label="stability bound (7.9)", **style.BOUND)
right.set(
    xscale="log",
    yscale="log",
    ylim=(1e-5, 30),
    xlabel="contexts to learn on",
    ylabel="risk on fresh contexts minus own risk",
    title="One step on new contexts",
)
right.set_xticks(rows.contexts, [f"{n:g}" for n in rows.contexts])
right.minorticks_off()
right.legend(loc="upper right")

# %%
style.save(fig, "bandit_pieces", style.table_path("bandit_pieces"))
