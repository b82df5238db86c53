"""Colours and style of the pages: one palette with a light and a dark value each, for text and figures alike.

The data colours are those of Okabe and Ito, made darker on light and lighter on dark ground: they can be told apart
with any kind of colour vision, and every figure marks its series by a name or a dash as well.
"""

from __future__ import annotations

# name -> (light, dark). Figures are drawn in the light values, which are all different, and get var(--NAME) instead.
PALETTE = {
    "page": ("#f4f6f8", "#0e1318"),
    "card": ("#ffffff", "#171d24"),
    "soft": ("#eef1f4", "#202832"),
    "line": ("#dde2e7", "#34404c"),
    "ink": ("#18222d", "#e7ecf1"),
    "muted": ("#556170", "#a3afbb"),
    "link": ("#06589c", "#7cc0f4"),
    "base": ("#7a8591", "#8f9ba8"),
    "free": ("#b87a00", "#e3a52a"),
    "student": ("#0d6ba8", "#4facea"),
    "other": ("#63b3de", "#a9d8f2"),
    "ceiling": ("#c94f0a", "#ff8b52"),
    "green": ("#0a7a5c", "#37c79e"),
    "purple": ("#a0508a", "#e2a0cb"),
    "good": ("#0b6b46", "#7fe0b8"),
    "good-soft": ("#dff2e9", "#123528"),
    "bad": ("#a4321a", "#ffab94"),
    "bad-soft": ("#fbe5df", "#431c13"),
    "unsure": ("#6b5200", "#ecd58a"),
    "unsure-soft": ("#f6edcf", "#3a300f"),
}

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_RULES = """
*{box-sizing:border-box}
html{scroll-padding-top:12px;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
a{color:var(--link)}
header,main,nav,footer{padding:0 24px}
.frame{max-width:1560px;margin:0 auto;display:grid;grid-template-columns:230px minmax(0,1fr);align-items:start}
header{grid-column:1/-1;padding-top:30px;display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start}
header>div{flex:1 1 300px;min-width:0}
h1{font-size:27px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:21px;line-height:1.25;margin:34px 0 6px;overflow-wrap:anywhere}
h3{font-size:16.5px;line-height:1.3;margin:0 0 4px;overflow-wrap:anywhere}
h2 a,h3 a{color:inherit;text-decoration:none}
h2 a:hover,h3 a:hover{text-decoration:underline}
p{margin:4px 0 12px;max-width:82ch;overflow-wrap:anywhere}
.about{color:var(--muted);font-size:14px}
nav{position:sticky;top:0;padding-top:34px;padding-bottom:24px;max-height:100vh;overflow-y:auto;font-size:14px}
nav ul{list-style:none;margin:0;padding:0}
nav li{margin:0 0 7px;line-height:1.3;overflow-wrap:anywhere}
nav li li{margin:5px 0 0 12px;font-size:13px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
nav>input{position:absolute;opacity:0;pointer-events:none}
nav>label{display:none;cursor:pointer;font-weight:600;color:var(--link)}
nav>label::after{content:" \\25be"}
nav>input:focus-visible+label{outline:2px solid var(--link)}
.theme{border:1px solid var(--line);border-radius:8px;padding:0;margin:4px 0 0;display:flex;overflow:hidden;
background:var(--card);font-size:13px}
.theme legend{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.theme input{position:absolute;opacity:0;pointer-events:none}
.theme label{padding:4px 12px;cursor:pointer;color:var(--muted)}
.theme input:checked+label{background:var(--soft);color:var(--ink);font-weight:600}
.theme input:focus-visible+label{outline:2px solid var(--link);outline-offset:-2px}
.card>h2{margin-top:2px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:14px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,190px),1fr));gap:12px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px;min-width:0;
overflow-wrap:anywhere}
.tile b{display:block;font-size:25px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{font-size:13px;color:var(--muted);display:block}
.scroll{overflow-x:auto;margin:8px 0 2px}
.scroll:focus-visible{outline:2px solid var(--link)}
table{border-collapse:collapse;min-width:min(100%,480px);font-size:13.5px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:2px 2px 4px}
th{color:var(--muted);font-weight:600;font-size:12.5px;text-align:right;vertical-align:bottom}
td{text-align:right;white-space:nowrap;vertical-align:top}
th,td{padding:6px 12px;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
.t{text-align:left}
td.t{white-space:normal;min-width:11ch;overflow-wrap:anywhere}
td.t:first-child{min-width:15ch}
td.short{white-space:nowrap}
td.long{min-width:30ch}
th:first-child,td:first-child{padding-left:2px}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.links{font-size:12.5px;color:var(--muted);margin:2px 0 10px}
.badge{display:inline-block;border-radius:99px;padding:1px 10px;font-size:12.5px;font-weight:600;white-space:normal}
.good{background:var(--good-soft);color:var(--good)}
.bad{background:var(--bad-soft);color:var(--bad)}
.unsure{background:var(--unsure-soft);color:var(--unsure)}
.note{border-left:3px solid var(--free);background:var(--unsure-soft);color:var(--ink);padding:8px 14px;margin:10px 0;
border-radius:0 6px 6px 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px 22px;margin:12px 0}
figure{margin:0;min-width:0}
figcaption{font-size:13.5px;color:var(--muted);margin-top:4px;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
svg{width:100%;height:auto;max-width:560px;display:block}
svg text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif!important}
details{border-top:1px solid var(--line);padding:8px 0}
summary{cursor:pointer;overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);border-radius:6px;padding:10px 12px;margin:8px 0;
font:12.5px/1.5 ui-monospace,"SF Mono",Consolas,monospace}
footer{grid-column:1/-1;color:var(--muted);font-size:13px;padding-top:12px;padding-bottom:40px}
@media (max-width:1000px){
.frame{display:block}
header,main,nav,footer{padding-left:16px;padding-right:16px}
nav{position:static;max-height:none;padding-top:10px;padding-bottom:0}
nav>label{display:inline-block;padding:4px 0}
nav>ul{display:none;padding-top:6px}
nav>input:checked~ul{display:block}
.card{padding:14px 12px}
}
@media (max-width:480px){
header,main,nav,footer{padding-left:8px;padding-right:8px}
.card{padding:12px 8px;margin:10px 0}
h1{font-size:22px}h2{font-size:19px}
th,td{padding:6px 8px}
td.long{min-width:24ch}
}
@media print{nav,.theme{display:none}.frame{display:block}.card,figure{break-inside:avoid}}
"""


def css() -> str:
    """The style sheet: light, dark where the system asks for it, and either one where the reader does."""
    light = "".join(f"--{name}:{pair[0]};" for name, pair in PALETTE.items()) + "color-scheme:light"
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in PALETTE.items()) + "color-scheme:dark"
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f":root:has(#theme-light:checked){{{light}}}:root:has(#theme-dark:checked){{{dark}}}{_RULES}"
    )
