"""Summary figures of a run, and number formatting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sandglass.metrics.verdicts import sentences
from sandglass.reports.section import Material
from sandglass.runs.result import figure as plain

MINUS = "\N{MINUS SIGN}"
"""Minus sign for figures; a hyphen is too short."""

NAMES = {
    "elbo": "ELBO",
    "rate": "rate (KL)",
    "distortion": "distortion",
    "log_prob": "log p(x)",
    "active_units": "active units",
    "mse": "MSE",
    "mae": "MAE",
    "psnr": "PSNR",
    "translation_mae": "MAE of translations",
    "cycle_mae": "MAE after a cycle",
    "cycle_mae_back": "MAE after a cycle from the other domain",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
    "fid": "FID",
    "fid_infinity": "FID\N{INFINITY}",
    "kid": "KID",
    "two_sample_auc": "two-sample AUC",
    "two_sample_accuracy": "two-sample accuracy",
    "patches": "patch distance",
    "patches_fine": "patch distance, finest scale",
    "patches_coarse": "patch distance, coarsest scale",
    "grid": "grid in the samples",
    "grid_period": "period of the grid",
    "least_class": "share of the most neglected class",
    "sharpness": "relative sharpness",
    "bits_per_dim": "bits/dim",
    "log_prob_bits_per_dim": "bits/dim of log p(x)",
    "ais": "log p(x) by AIS",
    "mmd": "MMD of the codes",
    "marginal_kl": "marginal KL",
    "mutual_information": "mutual information",
    "mig": "MIG",
    "sap": "SAP",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
    "factor_vae": "FactorVAE score",
}


_BITS = {"log_prob": "log_prob_bits_per_dim", "elbo": "bits_per_dim"}
"""Figures in bits/dim, by the figure in nats that they are of."""


def called(figure: str) -> str:
    """The display name of a figure.

    Example:
        >>> called("elbo"), called("nearest_ratio")
        ('ELBO', 'nearest ratio')
    """
    return NAMES.get(figure, figure.replace("_", " "))


def figure(value: float | None, stderr: float | None = None) -> str:
    """A figure for the page, with a true minus sign.

    Example:
        >>> figure(107.0342, 0.1834), figure(9.0), figure(0.00123456), figure(None)
        ('107.03 ± 0.18', '9', '0.001235', 'not finite')
    """
    return plain(value, stderr).replace("-", MINUS)


def verdict(m: Material) -> str:
    """A summary of the results: what is wrong, where a figure is bad beyond its error, and the first figure."""
    parts, wrong = [], []
    for report in m.reports[:1]:
        metrics = report["metrics"]
        wrong = sentences(metrics, m.model.spec)
        units = metrics.get("active_units")
        for name in ("log_prob", "elbo", "two_sample_auc", "fid", "mse"):
            if name in metrics:
                r = metrics[name]
                value = f"{figure(r['value'], r['stderr'])} {_unit(r)}".strip()
                parts.append(f"{report['split']} {headline(name, r.get('note'))} {value}")
                bits = metrics.get(_BITS.get(name))
                if bits:
                    parts.append(f"{figure(bits['value'], bits['stderr'])} bits/dim")
                break
        if units:
            of = units["unit"].replace("dimensions", "latent dimensions")
            parts.append(f"{figure(units['value'])} {of} active")
    said = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in wrong]
    if parts or said:
        return " ".join([*said, *(["; ".join(parts) + "."] if parts else [])])
    if not any(stage.objective for stage in m.model.stages()) and "score" not in m.model.provides:
        return "This model has no likelihood: assess its samples, and metrics that compare them with the data."
    return "Not evaluated yet; run evaluate to see its metrics."


def headline(figure: str, note: str | None) -> str:
    """The display name of a figure, with the features it is in where these are learnt from the data itself.

    Example:
        >>> headline("fid", "48 own features of content"), headline("mse", "")
        ('FID (own features)', 'MSE')
    """
    return called(figure) + (" (own features)" if "own features" in (note or "") else "")


def _unit(result: Mapping[str, Any]) -> str:
    """The unit of a figure where it says something in a few letters."""
    unit: str = result["unit"]
    return "" if len(unit) >= 10 or unit.startswith(("squared", "1")) else unit


def facts(m: Material) -> str:
    """Shape and number of examples, start time and corruption of a run."""
    data = m.run.config["data"]
    shape = "\N{MULTIPLICATION SIGN}".join(map(str, m.run.config["spec"]["shape"]))
    sizes = ", ".join(f"{n:,} {name}" for name, n in data["examples"].items())
    begun = next((e["time"] for e in m.events if e["event"] == "start"), None)
    when = f" Started {datetime.fromisoformat(begun):%-d %B %Y, %H:%M} UTC." if begun else ""
    damage = ", ".join(m.run.config["training"].get("corrupt") or ())
    how = f" Training inputs were corrupted ({damage}); all figures but the training curves are for clean inputs."
    return f"Examples of shape {shape}: {sizes}.{when}{how if damage else ''}"


def tiles(m: Material) -> list[tuple[str, str]]:
    """The figures at the top of the page, as (figure, label)."""
    made: list[tuple[str, str]] = []
    for report in m.reports[:1]:
        metrics = report["metrics"]
        bits = next((b for name, b in _BITS.items() if b in metrics and name in metrics), "")
        for name in (
            "log_prob",
            "elbo",
            bits,
            "rate",
            "distortion",
            "two_sample_auc",
            "coverage",
            "fid",
            "psnr",
            "mse",
        ):
            if name in metrics and len(made) < 4 + bool(bits):
                r = metrics[name]
                named = headline(name, r.get("note"))
                label = f"{report['split']} {named} {_unit(r) if _unit(r) not in named else ''}".strip()
                made.append((figure(r["value"], r["stderr"]).split(" ±")[0], label))
        if "active_units" in metrics:
            r = metrics["active_units"]
            made.append((figure(r["value"]), f"active {r['unit']}"))
    seconds = sum(e.get("seconds", 0.0) for e in m.events if e["event"] == "stop")
    made.append((f"{parameters(m):,}", "parameters"))
    return [*made, (duration(seconds), "of training")]


def warnings(m: Material) -> list[str]:
    """Warnings about the run or its report."""
    found = []
    skipped = [e for e in m.events if e["event"] == "skipped"]
    if skipped:
        count, first = sum(e.get("count", 1) for e in skipped), skipped[0]
        found.append(
            f"{count} update{'s were' if count > 1 else ' was'} skipped because a term was not finite; first at step "
            f"{first['step'] + 1}, term '{first['term']}' of phase '{first['phase']}'. A lower learning rate or "
            "gradient clipping usually helps."
        )
    step = max((r["step"] for r in m.records), default=0)
    for report in m.reports:
        if any(r["value"] is None for r in report["metrics"].values()):
            found.append(f"Some figures on the {report['split']} split are not finite.")
    if not step:
        found.append("Nothing was logged yet: the figures are of an untrained model.")
    if m.data is None:
        found.append("The data is not available, so sections that need real examples are omitted.")
    elif m.data.fingerprint and m.data.fingerprint != m.run.config["data"]["fingerprint"]:
        found.append("The data shown here is not the data the run was trained on.")
    return found


def parameters(m: Material) -> int:
    """Number of parameters of the model."""
    return sum(p.numel() for p in m.model.parameters())


def duration(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> duration(12.34), duration(754), duration(7322)
        ('12.3 s', '12 min 34 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Nested settings as rows of (dotted name, value).

    Example:
        >>> flat({"net": {"name": "mlp"}, "beta": 1.0, "clip": None})
        [['net.name', 'mlp'], ['beta', '1.0'], ['clip', 'none']]
    """
    rows: list[list[str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append([f"{prefix}{key}", _text(value)])
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        shown = ", ".join(_text(v) for v in value[:40])
        return shown + (f", and {len(value) - 40} more" if len(value) > 40 else "") or "none"
    return str(value)
