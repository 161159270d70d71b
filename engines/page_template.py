"""The look of the reports that `dubstream.engines.page` writes."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6570; --line: #d5dae0;
  --head: #f3f5f7; --passed: #146c2e; --failed: #b3261e; --warning: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #16191d; --soft: #a0a9b2;
  --line: #3a4149; --head: #22272d; --passed: #6fd08c; --failed: #ff8a80; --warning: #f0c060; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
.lead { font-size: 1.1rem; }
a { color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--head); }
.right { text-align: right; white-space: nowrap; }
.caption, figcaption, footer { color: var(--soft); font-size: .85rem; }
.verdict { font-weight: 600; white-space: nowrap; }
.passed { color: var(--passed); } .failed { color: var(--failed); } .warning { color: var(--warning); }
.not-run { color: var(--soft); font-style: italic; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
figure { margin: 0; flex: 1 1 18rem; min-width: 0; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
.pixelated { image-rendering: pixelated; width: 100%; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
footer th { font-weight: 600; }
@media print { :root { --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --head: #eee;
  --passed: #146c2e; --failed: #b3261e; --warning: #8a5a00; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  .wide { overflow: visible; } tr, figure { break-inside: avoid; } h2 { break-after: avoid; }
  nav { display: none; } }
"""

TEMPLATE = """\
{% macro badge(verdict) %}
<span class="verdict {{ verdict.value | replace(' ', '-') }}">{{ verdict | cell }}</span>
{%- endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if lead %}
<p class="lead">{{ lead }}</p>
{% endif %}
{% if chapters | length > 2 %}
<nav aria-label="Contents"><ol>
{% for section, blocks in chapters %}
<li><a href="#s{{ loop.index }}">{{ section.title }}</a>
{%- if section.verdict %} {{ badge(section.verdict) }}{% endif %}</li>
{% endfor %}
</ol></nav>
{% endif %}
{% for section, blocks in chapters %}
<section id="s{{ loop.index }}">
<h2>{{ section.title }}{% if section.verdict %} {{ badge(section.verdict) }}{% endif %}</h2>
{% for kind, block in blocks %}
{% if kind == "text" %}
<p>{{ block }}</p>
{% elif kind == "table" %}
{% set right = block.right() %}
<div class="wide"><table>
<thead><tr>
{%- for name in block.columns %}
<th scope="col"{% if right[loop.index0] %} class="right"{% endif %}>{{ name }}</th>{% endfor -%}
</tr></thead>
<tbody>
{% for row in block.rows %}
<tr>
{%- for value in row %}<td{% if right[loop.index0] %} class="right"{% endif %}>
{%- if value is verdict %}{{ badge(value) }}{% else %}{{ value | cell }}{% endif %}</td>{% endfor -%}
</tr>
{% endfor %}
</tbody>
</table></div>
{% if block.caption %}
<p class="caption">{{ block.caption }}</p>
{% endif %}
{% else %}
<div class="figures">
{% for figure in block %}
<figure><img src="{{ figure.uri }}" alt="{{ figure.caption }}"
{%- if figure.pixelated %} class="pixelated"{% endif %}>
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
{% endfor %}
</section>
{% endfor %}
<footer>
<div class="wide"><table><tbody>
{% for name, value in facts %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
</footer>
</body>
</html>
"""
