"""A hook of mkdocs: the pages that are made, and the links that lead out of docs/.

    mkdocs build --strict

Made are the pages of README.md and its like in other folders, one for each caching policy, and one for each setting, from
the code's own registry. A link to a file of the repository that is no page leads to a copy of it.
"""

import html
import inspect
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.append(str(Path(__file__).parent))
import pictures  # noqa: E402
import tables  # noqa: E402

from vllm_dllm.caching.base import CachePolicy  # noqa: E402
from vllm_dllm.caching.registry import OURS  # noqa: E402
from vllm_dllm.catalogue import CACHE, RULE_OPTIONS, options  # noqa: E402
from vllm_dllm.options import Option  # noqa: E402

ROOT = Path(__file__).parent.parent
# files of the repository that are pages, and where
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "examples/multi_gpu/README.md": "several-nodes.md",
    "checkpoints/README.md": "checkpoints.md",
}
LINK = re.compile(r"(\]\()(?!https?:)([^)#\s]+)?(#[^)\s]*)?(\))")
MENTIONED = ("canvas.md", "limits.md", "fidelity.md", "speed.md", "gpu.md", "architecture.md", "settings.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    first = ["index.md", "compare.md", "settings.md", "canvas.md", "limits.md"]
    last = ["architecture.md", "contributing.md", "changelog.md"]
    pages = {file.name for file in (ROOT / "docs").glob("*.md")} | set(PAGES.values())
    policies = ["policies/index.md", *(f"policies/{policy.name}.md" for policy in OURS)]
    settings = [f"settings/{option.key}.md" for option in own_options()]
    config.nav = [
        *first,
        {"Policies": policies},
        *sorted(pages - {*first, *last}),
        *last,
        {"Settings, one by one": settings},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {where: (ROOT / source).read_text() for source, where in PAGES.items()}
    made |= {f"policies/{policy.name}.md": policy_page(policy) for policy in OURS}
    made["policies/index.md"] = policies_page()
    made |= {f"settings/{option.key}.md": setting_page(option) for option in own_options()}
    for where, text in made.items():
        files.append(File.generated(config, where, content=text))
    for source in sorted(linked_files()):
        where = f"source/{source}" + text_suffix(source)
        files.append(File.generated(config, where, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """The page's links, from where it lies in the repository to where it lies in the site."""
    here = page.file.src_uri
    source = next((s for s, where in PAGES.items() if where == here), None)
    if source is None and (here.startswith("policies/") or here.startswith("settings/")):
        return markdown  # made for the site
    folder = posixpath.dirname(source if source is not None else f"docs/{here}")

    def led(match: re.Match[str]) -> str:
        begin, path, anchor, end = match.groups()
        if path is None:
            return match[0]
        target = in_site(posixpath.normpath(posixpath.join(folder, path)))
        return f"{begin}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor or ''}{end}"

    text = LINK.sub(led, markdown)
    return text + policy_links() if here == "settings.md" else text


def in_site(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return PAGES.get(f"{path}/README.md", "index.md")
    return f"source/{path}" + text_suffix(path)


def text_suffix(path: str) -> str:
    """So that a browser shows it."""
    return "" if Path(path).suffix in (".json", ".yml") else ".txt"


def linked_files() -> set[str]:
    """Files of the repository that a page links to and that are no pages."""
    found = set()
    pages = [(ROOT / s, posixpath.dirname(s)) for s in PAGES] + [(f, "docs") for f in (ROOT / "docs").glob("*.md")]
    for file, folder in pages:
        for match in LINK.finditer(file.read_text()):
            path = posixpath.normpath(posixpath.join(folder, match[2] or "."))
            if match[2] and in_site(path).startswith("source/") and (ROOT / path).is_file():
                found.add(path)
    return found


# ---- a page for each policy ----


def policies_page() -> str:
    rows = [(f"[`{p.name}`]({p.name}.md)", tables.first_paragraph(p)) for p in OURS]
    return f"# Caching policies\n\nWhat a pass computes when nothing calls for a refresh.\n\n{tables.table(('policy', 'computes'), rows)}"


def policy_page(policy: type[CachePolicy]) -> str:
    doc = inspect.getdoc(policy) or ""
    module = " ".join((inspect.getdoc(sys.modules[policy.__module__]) or "").split())
    source = module.partition("Source: ")[2].rstrip(".")
    parts = [f"# `{policy.name}`", doc]
    if source:
        parts.append(f"Source: {source}.")
    parts += [f"    vllm serve MODEL --dllm-cache {policy.name}", "## What its passes compute", picture(policy.name)]
    if policy.options:
        rows = [(f"[`{o.key}`](../settings/{o.key}.md)", tables.default(o), o.allowed, o.help) for o in policy.options]
        parts += ["## Its settings", tables.table(("setting", "default", "allowed", "what it does"), rows)]
    if policy.reasons:
        reasons = ", ".join(f"`{reason}`" for reason in policy.reasons)
        parts.append(f"It marks pages stale for: {reasons} (label `reason` of `vllm_dllm:stale_pages_total`).")
    parts.append(
        "What it costs in accuracy: [fidelity](../fidelity.md). What it needs: [settings](../settings.md#what-a-policy-needs)."
    )
    return "\n\n".join(parts) + "\n"


def picture(policy: str) -> str:
    record = pictures.record_of(policy)
    text = (
        f"A real answer of `tiny-llada`: {html.escape(record['question'])!r}. A line is a pass, a column a position of the "
        "canvas: the prompt, and the response. Dark: computed in this pass. Marked: unmasked in it."
    )
    return f"{text}\n\n{pictures.passes_svg(record)}"


# ---- a page for each setting ----


def own_options() -> list[Option]:
    """Every setting that is ours, not another package's."""
    return [option for key, option in options().items() if f"`{key}`" in tables.settings()]


def setting_page(option: Option) -> str:
    parts = [f"# `{option.key}`", f"{option.help[0].upper()}{option.help[1:]}."]
    rows = [
        ("default", tables.default(option) or "none"),
        ("allowed", option.allowed),
        ("read by", tables.read_by(option)),
    ]
    parts.append(tables.table(("", ""), rows))
    value = json.dumps(example(option))
    ways = []
    if not option.request_only:
        ways += [
            f"    vllm serve MODEL {option.flag} {value.strip(chr(34))}",
            f'    LLM(model, additional_config={{"{option.key}": {value}}})',
        ]
    if not option.server_only:
        ways += [
            f'    "vllm_xargs": {{"{option.key}": {value}}}',
            f'    SamplingParams(extra_args={{"{option.key}": {value}}})',
        ]
    parts.append("\n".join(ways))
    readers = [p.name for p in OURS if option in p.options]
    if readers:
        parts.append("Policies: " + ", ".join(f"[`{name}`](../policies/{name}.md)" for name in readers) + ".")
    if option is CACHE:
        parts.append("[The policies](../policies/index.md), each with its page.")
    if option in RULE_OPTIONS:
        parts.append("[The unmasking rules](../settings.md#the-unmasking-rule); at most one of them is given.")
    pages = [(name, heads) for name in MENTIONED if (heads := list(sections(name, option.key)))]
    if pages:
        parts += [
            "## Where it is told of",
            "\n".join(f"- [{title}](../{name}#{anchor})" for name, heads in pages for title, anchor in heads),
        ]
    return "\n\n".join(parts) + "\n"


def example(option: Option) -> object:
    if option.default is not None:
        return option.default
    if option.choices:
        return option.choices[0]
    return {int: 8, float: 0.5, bool: True, list: [0.5, 0.5]}.get(option.type, "...")


def sections(name: str, key: str) -> Iterator[tuple[str, str]]:
    """Title and anchor of each section of a page that mentions a setting."""
    from markdown.extensions.toc import slugify

    title, anchor, name_only = "", "", key.removeprefix("dllm_")
    seen = set()
    for line in (ROOT / "docs" / name).read_text().splitlines():
        if line.startswith("#") and " " in line:
            title = line.lstrip("# ").replace("`", "")
            anchor = slugify(title, "-")
        elif re.search(rf"\b{key}\b|`{name_only}`", line) and anchor not in seen:
            seen.add(anchor)
            yield title, anchor


def policy_links() -> str:
    pages = ", ".join(f"[`{option.key}`](settings/{option.key}.md)" for option in own_options())
    return f"\n\n## Each by itself\n\n{pages}\n"
