# %% [markdown]
# # Trained transformers with wrong judges, other sizes, prices and steps
# All with the reward judge, one seed. Above left: what is left of the initial KL(π*‖π) to the equilibrium of the judge
# who is right, against the share of pairs judged wrongly. Above right: size of the transformer. Below left: WIND at
# three prices and four steps. Below right: entropy along the way.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("lm_robust")
settings = ["flips", "bias", "width", "beta", "step"]
last = table.groupby(["method", *settings], sort=False).tail(1)
standard = (table[settings] == [0, 0, 64, 0.2, 1]).all(axis=1)
LEFT = r"$KL(\pi^*\,\|\,\pi)$ left, of the initial one"

# %%
fig, axes = plt.subplots(2, 2, figsize=(9, 7.0))


def alike(*free):
    """Rows at the end that differ from the standard in nothing but these."""
    fixed = {"flips": 0, "bias": 0, "width": 64, "beta": 0.2, "step": 1}
    return last[np.logical_and.reduce([last[k] == v for k, v in fixed.items() if k not in free])]


for axis, x, free in ((axes[0, 0], "flips", "flips"), (axes[0, 1], "parameters", "width")):
    for name, rows in alike(free).groupby("method", sort=False):
        rows = rows.sort_values(x)
        axis.plot(rows[x], rows.fraction, **style.method(name, label=name, markersize=6))
        if free == "flips" and name == "WIND":
            aim = rows.aim.where(rows.aim > 0)
            axis.plot(rows[x], aim, color="k", label="the wrong judge's own equilibrium", **style.BOUND)
    axis.axhline(1, color="0.4", linestyle=":", linewidth=1.2)
    axis.set(yscale="log", ylabel=LEFT, ylim=(0.004, 60))
    where = {"x": 0.02, "ha": "left"} if free == "flips" else {"x": 0.98, "ha": "right"}
    style.note(axis, y=1.08, text="dotted: as far as the reference", transform=axis.get_yaxis_transform(), **where)
axes[0, 0].set(xlabel="share of pairs judged wrongly", title="A wrong judge")
axes[0, 0].legend(loc="lower right")
axes[0, 1].set(xlabel="parameters of the transformer", xscale="log", title="Size")
axes[0, 1].legend(loc="lower left")
shades = plt.cm.viridis([0.0, 0.45, 0.85])
for i, (beta, rows) in enumerate(alike("beta", "step").query("method == 'WIND'").groupby("beta")):
    rows = rows.sort_values("step")
    axes[1, 0].plot(rows.step, rows.fraction, color=shades[i % 3], marker="osv"[i % 3], label=rf"$\beta={beta:g}$")
axes[1, 0].axvline(1, color="k", **style.BOUND)
axes[1, 0].set(
    xscale="log",
    yscale="log",
    xlabel=r"step $\eta$, as a multiple of $4\beta/L^2$ (dashed: largest of theory 5.2)",
    ylabel=LEFT,
    title="WIND alone: price and step",
)
axes[1, 0].legend(title="price")
for name, rows in table[standard].groupby("method", sort=False):
    axes[1, 1].plot(rows.tokens / 1000, rows.entropy, **style.method(name, label=name, markersize=6))
axes[1, 1].set(xlabel="thousand generated tokens", ylabel="entropy, nats", ylim=(0, None), title="Diversity on the way")
axes[1, 1].legend(loc="center right")

# %%
style.save(fig, "lm_robust", style.table_path("lm_robust"))
