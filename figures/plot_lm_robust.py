# %% [markdown]
# # Trained transformers with wrong judges, other sizes, prices and steps
# All with the reward judge, one seed. Above left: what is left of the initial KL(π*‖π) to the equilibrium of the judge
# who is right, against the share of pairs judged wrongly; dashed: the equilibrium of the judge who is wrong. Above
# right: size of the transformer. Below left: WIND at three prices and four steps. Below right: entropy along the way.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("lm_robust")
settings = ["flips", "bias", "width", "beta", "step"]
last = table.groupby(["method", *settings], sort=False).tail(1)
standard = (table[settings] == [0, 0, 64, 0.2, 1]).all(axis=1)

# %%
fig, axes = plt.subplots(2, 2, figsize=(7.4, 5.4))


def alike(*free):
    """Rows at the end that differ from the standard in nothing but these."""
    fixed = {"flips": 0, "bias": 0, "width": 64, "beta": 0.2, "step": 1}
    return last[np.logical_and.reduce([last[k] == v for k, v in fixed.items() if k not in free])]


for axis, x, free in ((axes[0, 0], "flips", "flips"), (axes[0, 1], "parameters", "width")):
    for name, rows in alike(free).groupby("method", sort=False):
        rows = rows.sort_values(x)
        axis.plot(rows[x], rows.fraction, **style.method(name, label=name))
        if free == "flips" and name == "WIND":
            aim = rows.aim.where(rows.aim > 0)
            (line,) = axis.plot(rows[x], aim, color="0.3", label="the wrong judge's equilibrium", **style.BOUND)
            axis.legend(handles=[line], loc="lower right")
    axis.set(yscale="log", ylabel=r"fraction of the initial $KL(\pi^*\|\pi)$")
axes[0, 0].set_xlabel("share of pairs judged wrongly")
axes[0, 1].set(xlabel="parameters", xscale="log")
for i, (beta, rows) in enumerate(alike("beta", "step").query("method == 'WIND'").groupby("beta")):
    rows = rows.sort_values("step")
    axes[1, 0].plot(rows.step, rows.fraction, color=style.CYCLE[i], marker="osv"[i % 3], label=f"beta {beta:g}")
axes[1, 0].set(
    xscale="log",
    yscale="log",
    xlabel=r"eta, in units of $4\beta/L^2$",
    ylabel=r"fraction of the initial $KL(\pi^*\|\pi)$",
)
axes[1, 0].axvline(1, color="0.5", linestyle=":", linewidth=1)
axes[1, 0].legend()
for name, rows in table[standard].groupby("method", sort=False):
    axes[1, 1].plot(rows.tokens / 1000, rows.entropy, **style.method(name, label=name))
axes[1, 1].set(xlabel="thousand generated tokens", ylabel="entropy, nats", ylim=(0, None))
axes[1, 1].legend(loc="center right")

# %%
style.save(fig, "lm_robust", style.table_path("lm_robust"))
