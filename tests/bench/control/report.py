"""What `./dev bench control` says of its numbers: tables in Markdown, and one picture. The standard library only. What a run did not come to is left
out, or a dash."""

from xml.sax.saxutils import escape


def _at(results, *path):
    for name in path:
        results = results.get(name) if isinstance(results, dict) else None
    return results


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _number(value, unit):
    return "-" if value is None else f"{value:,}{unit}"


def _ms(latency):
    return "-" if latency is None else f"{latency['min_ms']}, {latency['median_ms']}, {latency['p99_ms']} ms"


def targets(results):
    """(what, value, bound, unit) of everything that has a bound and was measured; at most the bound is good."""
    many = f"{_at(results, 'many') or 0:,} sidecars reconnect"
    again = [_at(results, "many_at_once", how, "resources_sent_again") for how in ("resumed", "full")]
    all_of_them = [
        ("a pod's label, p99", _at(results, "sizes", "large", "label", "p99_ms"), 250, "ms"),
        ("a policy's edit, p99", _at(results, "sizes", "large", "edit", "p99_ms"), 250, "ms"),
        ("50 changes/s: the last arrives after", _at(results, "sizes", "large", "churn", "last_after_ms"), 250, "ms"),
        ("full start", _at(results, "sizes", "large", "start_s"), 5, "s"),
        ("control plane without streams", _at(results, "sizes", "large", "control_mb"), 150, "MB"),
        ("memory of a stream", _at(results, "many_at_once", "kb_per_stream"), 40, "KB"),
        (f"{many}, resumed", _at(results, "many_at_once", "resumed", "seconds"), 30, "s"),
        (f"{many}, full handshakes", _at(results, "many_at_once", "full", "seconds"), 60, "s"),
        ("sent again to those that reconnect", None if None in again else sum(again), 0, "resources"),
        (f"sent to {results['sidecars']:,} sidecars while the cluster grew", _at(results, "growth", "bytes"), 0, "bytes"),
    ]
    return [row for row in all_of_them if row[1] is not None]


def _by_size(results):
    sizes = [size for size in (_at(results, "sizes", "small"), _at(results, "sizes", "large")) if size]
    label, edit = (_at(sizes[0], kind, "sidecars") for kind in ("label", "edit"))

    def row(name, *path, unit):
        return [name, *(_number(_at(size, *path), unit) for size in sizes)]
    rows = [
        row('start to "everything published"', "start_s", unit=" s"),
        row("memory of the control plane, no streams yet", "control_mb", unit=" MB"),
        row(f"... with {results['sidecars']:,} streams, after the changes below", "control_mb_streams", unit=" MB"),
        row(f"{results['sidecars']:,} sidecars connect", "connect_s", unit=" s"),
        row("sent to a sidecar at its start", "start_bytes", unit=" bytes"),
        [f"a pod's label, {label} sidecars: min, median, p99", *(_ms(_at(size, "label")) for size in sizes)],
        row("... sent to each of them", "label", "bytes", unit=" bytes"),
        [f"a policy edited, {edit} sidecars: min, median, p99", *(_ms(_at(size, "edit")) for size in sizes)],
        row("... sent to each of them", "edit", "bytes", unit=" bytes"),
        row("pods relabelled per second", "churn", "changes_per_s", unit=""),
        row("... updates that this made", "churn", "updates", unit=""),
        row("... the last one arrives after", "churn", "last_after_ms", unit=" ms"),
        row("... of one core", "churn", "cpu_percent", unit=" %"),
    ]
    return _table(["", *(f"{size['pods']:,} pods, {size['policies']:,} policies" for size in sizes)], rows)


def tables(results):
    verdicts = [[what, f"{value:,} {unit}", f"{bound:,} {unit}", "yes" if value <= bound else "**no**"] for what, value, bound, unit in targets(results)]
    parts = [_table(["to reach", "measured", "at most", "reached"], verdicts), _by_size(results)]
    if growth := _at(results, "growth"):
        small, large = results["sizes"]["small"], results["sizes"]["large"]
        parts.append(f"While the cluster grew from {small['pods']:,} to {large['pods']:,} pods the {results['sidecars']:,} connected sidecars got "
                     f"{growth['updates']} updates, {growth['bytes']} bytes; each held {growth['held_before']:,} bytes before and {growth['held_after']:,} after.")
    moves = [(name, _at(results, "many_at_once", how)) for name, how in (("with their TLS sessions", "resumed"), ("without", "full"))]
    rows = [[name, f"{of['seconds']} s", f"{of['resumed']:,}", f"{of['full']:,}", of.get("attempts_failed", "-"), of["resources_sent_again"]] for name, of in moves if of]
    if rows:
        parts.append(_table([f"{results['many']:,} sidecars move to the other replica at once", "all in step after", "resumed", "full handshakes",
                             "attempts that failed", "resources sent again"], rows))
    return "\n\n".join(parts)


def picture(results):
    """Each bound as a bar that is full when it is used up; a logarithm would hide how far away it is."""
    rows = [row for row in targets(results) if row[2] > 0]
    width, left, bar, step, top = 900, 320, 420, 34, 48
    height = top + step * len(rows) + 16
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="{left}" y="24" fill="#555555">share of what is allowed</text>',
           f'<text x="{left + bar}" y="24" fill="#555555" text-anchor="end">100 %</text>']
    for number, (what, value, bound, unit) in enumerate(rows):
        y = top + step * number
        share = value / bound
        fill = "#3b7d4f" if share <= 1 else "#b3402e"
        out += [f'<text x="{left - 12}" y="{y + 15}" text-anchor="end" fill="#222222">{escape(what)}</text>',
                f'<rect x="{left}" y="{y}" width="{bar}" height="20" fill="#e8e8e8"/>',
                f'<rect x="{left}" y="{y}" width="{max(1, round(bar * min(share, 1)))}" height="20" fill="{fill}"/>',
                f'<text x="{left + bar + 10}" y="{y + 15}" fill="#222222">{value:,} of {bound:,} {unit}</text>']
    return "\n".join([*out, "</svg>", ""])
