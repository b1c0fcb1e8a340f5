"""What the demo prints: tables, the access records under them, colours on a terminal."""

import json
import textwrap

COLUMNS = ("#", "from", "to", "expected", "seen", "decided by")
SERVICE_ACCOUNT = "/sa/"


def short_id(spiffe_id):
    """pod/frontend/6f1d2c34.. of a SPIFFE ID whose beginning is the same for all."""
    if not spiffe_id:
        return "not verified"
    rest = spiffe_id.split(SERVICE_ACCOUNT, 1)[-1].split("/", 1)[-1]
    return f"{rest[:-28]}.." if rest.count("/") == 2 and len(rest) > 36 else rest


def short_record(record):
    """The telling fields of one access record, as columns."""
    peer = record.get("destination.spiffe_id" if record["direction"] == "outbound" else "source.spiffe_id")
    closed = "/".join(filter(None, (record["close.reason"], record.get("close.detail"))))
    tls = record.get("tls.protocol.version", "no TLS") + (" resumed" if record.get("tls.resumed") else "")
    stream = f"{record['connection.id'][:8]}#{record.get('connection.stream', '-')}" if "connection.id" in record else "-"
    return (record["direction"], record["verdict"], closed, f"peer {short_id(peer)}", tls,
            f"sent {record['bytes_sent']} recv {record['bytes_recv']}", f"id {stream}", f"policy generation {record.get('policy.generation', '-')}")


class Report:
    """Prints, and remembers whether everything was as expected."""

    def __init__(self, out, full_records):
        self.out, self.full_records = out, full_records
        self.colours = out.isatty()
        self.rows = self.different = 0

    def say(self, text=""):
        print(text, file=self.out, flush=True)

    def _paint(self, text, code):
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def step(self, number, title, explanation):
        self.say()
        self.say(self._paint(f"({number}) {title}", "1"))
        self._prose(explanation)
        self.say()

    def remark(self, text):
        """Between two tables."""
        self.say()
        self._prose(text)
        self.say()

    def _prose(self, text):
        for line in textwrap.wrap(text, 116, break_on_hyphens=False):
            self.say(f"    {line}")

    def _aligned(self, lines):
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]

    def table(self, rows):
        """The rows, and their records under them."""
        lines = [COLUMNS]
        for row in rows:
            self.rows += 1
            row.number = str(self.rows)
            lines.append((row.number, row.source, row.destination, row.expected, row.seen, row.decided))
        head, *body = self._aligned(lines)
        self.say(self._paint(f"  {head}", "4"))
        for row, text in zip(rows, body):
            colour = "31" if not row.as_expected else "32" if row.seen == "allowed" else "33"
            self.say(self._paint(f"  {text}", colour))
            if not row.as_expected:
                self.different += 1
                reasons = row.wrong + ([f"expected to be decided by: {row.by}"] if row.decided != row.by else [])
                self.say(self._paint(f"  {row.number}  DIFFERENT" + (f": {'; '.join(reasons)}" if reasons else ""), "31;1"))
        self.say()
        if self.full_records:
            for row in rows:
                for pod, record in row.records:
                    self.say(f"    {row.number} {pod} {json.dumps(record)}")
            return
        records = [(row.number, pod, *short_record(record)) for row in rows for pod, record in row.records]
        for text in self._aligned(records):
            self.say(self._paint(f"    {text}", "2"))
