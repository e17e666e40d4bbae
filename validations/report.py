"""One self-contained page from the records of a folder: works offline, on a phone, in the dark."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

# Data colours of the figures, lighter on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --page: #ffffff; --card: #f5f7fa; --line: #d9dfe7;
  --agrees: #0a7a48; --differs: #b3372b; --undecided: #8a6100; --link: #005a96;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa6b5; --page: #12161c;
  --card: #1b212a; --line: #333c48; --agrees: #4cc38a; --differs: #ff8a7a; --undecided: #e5b84a;
  --link: #6cb8f0;
  --c0: #4aa8e8; --c1: #f28a3c; --c2: #35c49a; --c3: #e29cc4; --c4: #f0b53a; --c5: #8fd0f5; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 76rem; color: var(--ink);
  background: var(--page); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .6rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
.soft, figcaption, dt { color: var(--soft); }
.small { font-size: .88rem; }
section { border-top: 1px solid var(--line); padding: 1.6rem 0 .6rem; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; font-size: .85rem;
  font-weight: 600; border: 1.5px solid currentColor; white-space: nowrap; }
.agrees { color: var(--agrees); } .differs, .error { color: var(--differs); }
.undecided { color: var(--undecided); } .skipped { color: var(--soft); }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: 1rem; margin: 1rem 0; }
figure { margin: 0; background: var(--card); border-radius: .6rem; padding: .7rem .7rem .8rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; line-height: 1.45; margin-top: .4rem; }
ul { padding-left: 1.2rem; margin: .5rem 0; max-width: 52rem; } li { margin: .3rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem .9rem; margin: .8rem 0;
  font-size: .95rem; max-width: 60rem; } dd { margin: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; background: var(--card);
  padding: .7rem; border-radius: .5rem; max-height: 24rem; overflow-y: auto; }
@media (max-width: 46rem) {
  dl { grid-template-columns: 1fr; gap: 0; } dt { margin-top: .5rem; font-size: .85rem; }
  .stack thead { display: none; } .stack, .stack tbody, .stack tr, .stack td { display: block; }
  .stack tr { border-bottom: 1px solid var(--line); padding: .6rem 0; }
  .stack td { border: 0; padding: .1rem 0; text-align: left !important; white-space: normal; }
  .stack td:empty { display: none; }
  .stack td[data-label] { display: inline-block; margin-right: 1.1rem; }
  .stack td[data-label]::before { content: attr(data-label) " "; color: var(--soft);
    font-size: .85rem; } }
"""


# How the plain text of records reads on the page.
SYMBOLS = {
    "eta": "η", "sigma": "σ", "theta": "θ", "mu": "μ", "delta": "δ", "eps": "ε", "lambda": "λ",
    "->": "→", "^2": "²", "^-3": "⁻³", "sqrt": "√",
}  # fmt: skip
_WORDS = re.compile(
    r"(?<![A-Za-z])(eta|sigma|theta|mu|delta|eps|lambda|sqrt)(?![A-Za-z])|->|\^2|\^-3"
)


def pretty(text: str) -> str:
    """Text for the page: escaped, with Greek letters and powers as symbols."""
    return html.escape(_WORDS.sub(lambda m: SYMBOLS[m.group(0)], text))


def build(folder: Path, path: Path | None = None) -> Path:
    """Writes ``report.html`` from every record (``<row>.json``) and figure in ``folder``."""
    from harness import modules

    records = [
        json.loads((folder / f"{row}.json").read_text(encoding="utf-8"))
        for row in modules()
        if (folder / f"{row}.json").is_file()
    ]
    path = path or folder / "report.html"
    path.write_text(page(records, folder), encoding="utf-8")
    return path


def page(records: list[dict[str, Any]], folder: Path) -> str:
    """The whole page."""
    verdicts = ("agrees", "differs", "undecided", "skipped")
    count = {v: sum(r["verdict"] == v for r in records) for v in verdicts}
    failed = [r["row"] for r in records if not r["holds"]]
    newest = max((r["date"] for r in records), default="")[:10]
    minutes = sum(r["seconds"] for r in records) / 60
    scales = " and ".join(sorted({r["scale"] for r in records}))
    told = ", ".join(f"{n} {v}" for v, n in count.items() if n)
    seen = records[0]["versions"] if records else {}
    made = ", ".join(f"{k} {v}" for k, v in seen.items())
    warning = (
        f'<p class="differs"><strong>Contradicts the theory: {", ".join(failed)}.</strong></p>'
        if failed
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>langevin: published claims, measured</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Published claims about SGD, measured</h1>
<p>Every row takes one claim of a paper, says what theory predicts, measures it with an ensemble of
simulated replicas, and gives a verdict. The verdict in this table is on the claim as published,
where it is meant to hold; below each row stand the numbers behind it, where the claim stops
holding, and controls that must fail.</p>
<p class="soft small">{len(records)} rows: {told}. {scales.capitalize()} scale,
{minutes:.1f} minutes of computing, {newest}. {html.escape(made)}.</p>
{warning}
</header>
{_summary(records)}
{"".join(_section(record, folder) for record in records)}
</body>
</html>
"""


def _summary(records: list[dict[str, Any]]) -> str:
    rows = []
    for r in records:
        numbers = ["", "", ""]
        if r["checks"]:
            numbers = [_pm(r["value"], r["stderr"]), _g(r["prediction"]), _g(r["z"], 2)]
        labels = ("measured", "predicted", "z")
        cells = "".join(
            f'<td class="n" data-label="{label}">{number}</td>'
            for label, number in zip(labels, numbers, strict=True)
        )
        rows.append(
            f'<tr><td><a href="#{r["row"]}"><strong>{r["row"]}</strong></a></td>'
            f"<td>{pretty(r['claim'])}{_quantity(r)}</td>{cells}"
            f"<td>{_badge(r['verdict'])}</td></tr>"
        )
    return (
        '<div class="wide"><table class="stack"><thead><tr><th>Row</th><th>Claim</th>'
        '<th class="n">Measured</th><th class="n">Predicted</th><th class="n">z</th>'
        f"<th>Verdict</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _quantity(r: dict[str, Any]) -> str:
    """What the numbers of the summary are."""
    return f'<br><span class="soft small">{pretty(r["quantity"])}</span>' if r["checks"] else ""


def _section(r: dict[str, Any], folder: Path) -> str:
    facts = [("Claim", r["claim"]), ("Source", r["source"])]
    if r["checks"]:
        facts += [
            ("Prediction", r["theory"]),
            ("Measurement", r["measurement"]),
            ("Headline", f"{r['quantity']}: {_pm(r['value'], r['stderr'])}, "
             f"predicted {_g(r['prediction'])}, z = {_g(r['z'], 2)}"),
        ]  # fmt: skip
    terms = "".join(f"<dt>{k}</dt><dd>{pretty(v)}</dd>" for k, v in facts)
    findings = "".join(f"<li>{pretty(f)}</li>" for f in r["findings"])
    figures = "".join(_figure(f, folder) for f in r["figures"])
    settings = json.dumps(r.get("settings", {}), indent=1)
    return f"""
<section id="{r["row"]}">
<h2>{r["row"]} &nbsp;{_badge(r["verdict"])}</h2>
<dl>{terms}</dl>
<ul>{findings}</ul>
<div class="figures">{figures}</div>
{_checks(r["checks"])}
<details><summary>Settings</summary><pre>{html.escape(settings)}</pre></details>
<p class="soft small">{r["seconds"]:.0f} s, {r["scale"]} scale. <a href="#">Top</a></p>
</section>"""


def _checks(checks: list[dict[str, Any]]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f"<tr><td>{pretty(c['statement'])}</td>"
        f'<td class="n" data-label="measured">{_pm(c["value"], c["stderr"])}</td>'
        f'<td class="n" data-label="predicted">{_g(c["prediction"])}</td>'
        f'<td class="n" data-label="z">{_g(c["z"], 2)}</td>'
        f"<td>{_badge(c['verdict'])}{_unexpected(c)}</td></tr>"
        for c in checks
    )
    return (
        '<div class="wide"><table class="stack"><thead><tr><th>Check</th><th class="n">Measured'
        '</th><th class="n">Predicted</th><th class="n">z</th><th>Verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _unexpected(c: dict[str, Any]) -> str:
    """What a reader should know beside a verdict."""
    if c["verdict"] == c["expected"] == "differs":
        word = "as it must"
    elif c["verdict"] != c["expected"]:
        word = f"(theory implies: {c['expected']})"
    elif c.get("bound"):
        return ""
    elif isinstance(c["within"], float):
        word = f"within {100 * c['within']:.2g} %"
    else:
        return ""
    return f' <span class="soft small">{word}</span>'


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{verdict}</span>'


def _figure(figure: dict[str, str], folder: Path) -> str:
    caption = pretty(figure["caption"])
    path = folder / f"{figure['name']}.svg"
    return f"<figure>{inline(path, caption)}<figcaption>{caption}</figcaption></figure>"


def inline(path: Path, label: str) -> str:
    """An SVG file as part of the page: text as text, black as the page's ink, its own ids."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    for ink in ("#222222", "#000000", "#262626"):
        rest = rest.replace(ink, "currentColor")
    for k, colour in enumerate(COLOURS):
        rest = rest.replace(colour.lower(), f"var(--c{k})")
    rest = rest.replace("<text ", '<text fill="currentColor" ')
    name = path.stem
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"\s*\n\s*", "\n", rest)
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} {box.group(0)} role="img" aria-label="{label}">{rest}'


def _g(value: Any, digits: int = 5) -> str:
    if value is None:
        return "-"
    value = float(value)
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}" if digits == 2 and abs(value) < 1e4 else f"{value:.{digits}g}"


def _pm(value: Any, stderr: Any) -> str:
    """A value with its standard error, to two digits of that error."""
    if value is None or not stderr or not math.isfinite(float(stderr)):
        return _g(value)
    value, stderr = float(value), float(stderr)
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.4g} ± {stderr:.2g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"
