"""Changes of raw files for `test_mutations`: harmless ones, ones that break known lines, and any damage.

A change of a file takes (rng, content), a breaker takes (rng, line) and makes it a line that cannot be read.
"""

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable, Sequence

Change = Callable[[random.Random, bytes], bytes]


def lines_of(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def with_bom(rng, content):
    return b"\xef\xbb\xbf" + content


def with_crlf(rng, content):
    return content.replace(b"\n", b"\r\n")


def without_last_end(rng, content):
    return content.removesuffix(b"\n")


def with_blank_lines(rng, content):
    lines = lines_of(content)
    for _ in range(3):
        lines.insert(rng.randint(0, len(lines)), rng.choice([b"", b"  ", b"\t"]))
    return joined(lines)


def as_gzip(rng, content):
    return gzip.compress(content)


def change_bytes(rng, content):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(changed))
        changed[at] = rng.choice([changed[at] ^ 1 << rng.randrange(8), rng.randrange(256)])
    return bytes(changed)


def cut_file(rng, content):
    at = rng.randrange(1, len(content))
    return rng.choice([content[:at], content[at:]])


def cut_a_line(rng, content):
    lines = lines_of(content)
    at = rng.randrange(len(lines))
    lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    return joined(lines)


def join_two_lines(rng, content):
    lines = lines_of(content)
    at = rng.randrange(len(lines) - 1)
    lines[at : at + 2] = [lines[at] + lines[at + 1]]
    return joined(lines)


def insert_token(rng, content):
    tokens = [b'"', b"NaN", b"1e999", b"9" * 400, b"\xff\xfe", b"\x00", b"\r", b"-", b"\xed\xa0\x80",
              b"{" * 3000, b"null", b",", b"\xc2\x85", b"'", b"\\ud800", b"\n"]  # fmt: skip
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(tokens) + content[at:]


def replace_number(rng, content):
    places = list(re.finditer(rb"\d+", content))
    place = rng.choice(places)
    token = rng.choice(
        [b"NaN", b"Infinity", b"-7", b"1e999", b"9" * 30, b"x", b"", b"true", b"0x1", b"1_0"]
    )
    return content[: place.start()] + token + content[place.end() :]


def emptied(rng, content):
    return rng.choice([b"", b"\n", b"\xef\xbb\xbf", b"\n \n\n"])


def in_another_encoding(rng, content):
    return content.decode("utf-8", "replace").encode(
        rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1"]), "replace"
    )


def damaged_gzip(rng, content):
    return rng.choice([cut_file, change_bytes])(rng, gzip.compress(content, mtime=0))


DAMAGES = [change_bytes, change_bytes, cut_file, cut_a_line, join_two_lines, insert_token, insert_token,
           replace_number, emptied, in_another_encoding, damaged_gzip]  # fmt: skip
HARMLESS = [with_bom, with_crlf, without_last_end, with_blank_lines, as_gzip]

# ------------------------------------------------------------------ CSV


def csv_lines(rows, quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue().encode()


def csv_rows(content):
    return list(csv.reader(io.StringIO(content.decode())))


def change_fields(change):
    """A breaker from a function of (rng, fields) that changes the fields in place."""

    def breaker(rng, line):
        (fields,) = csv_rows(line)
        change(rng, fields)
        return csv_lines([fields]).removesuffix(b"\n").replace(b"SPOIL", b"\xff")

    return breaker


def set_csv(place, *values):
    return change_fields(lambda rng, fields: fields.__setitem__(place, rng.choice(values)))


def spoil_utf8_of(place):
    return change_fields(lambda rng, fields: fields.__setitem__(place, "SPOIL" + fields[place]))


lose_field = change_fields(lambda rng, fields: fields.pop(rng.randrange(len(fields))))


def gain_field(rng, line):
    return line + b",more"


def open_quote_in(place):
    def breaker(rng, line):
        fields = [field.replace(",", " ") for field in csv_rows(line)[0]]
        fields[place] = '"' + fields[place]
        return ",".join(fields).encode()

    return breaker


def move_columns(rng, content):
    rows = csv_rows(content)
    order = rng.sample(range(len(rows[0])), len(rows[0]))
    return csv_lines([[row[place] for place in order] for row in rows])


def add_column(rng, content):
    header, *rows = csv_rows(content)
    more = [[*row, rng.choice(["", "a, b", '5"', "é"])] for row in rows]
    return csv_lines([[*header, "unused"], *more])


def quote_all(rng, content):
    return csv_lines(csv_rows(content), csv.QUOTE_ALL)


def lose_a_column(rng, content):
    rows = csv_rows(content)
    place = rng.randrange(len(rows[0]))
    return csv_lines([[*row[:place], *row[place + 1 :]] for row in rows])


CSV_HARMLESS = [*HARMLESS, move_columns, add_column, quote_all]
CSV_BREAKERS = [lose_field, gain_field]

# ------------------------------------------------------------------ JSON lines


def json_lines(records):
    return joined([json.dumps(record, ensure_ascii=False).encode() for record in records])


def python_lines(records):
    return joined([repr(record).encode() for record in records])


def set_json(key, *values):
    def change(rng, line):
        record = json.loads(line)
        record[key] = rng.choice(values)
        return json.dumps(record).encode()

    return change


def lose_key(*keys):
    def change(rng, line):
        record = json.loads(line)
        del record[rng.choice(keys)]
        return json.dumps(record).encode()

    return change


def cut_record(rng, line):
    return line[: rng.randrange(1, len(line) - 1)]


def no_record(rng, line):
    return rng.choice(
        [b"{}", b"[]", b"3", b"null", b"garbage", b"[" * 9000, b"{" * 2000, b'"text"', b"{]"]
    )


def spoil_record(rng, line):
    return b"\xff" + line


def huge_number(key):
    """A breaker: a number that JSON can write, but that is no finite number."""

    def change(rng, line):
        record = json.loads(line)
        record[key] = "HUGE"
        return (
            json.dumps(record)
            .encode()
            .replace(b'"HUGE"', rng.choice([b"1e999", b"NaN", b"-Infinity"]))
        )

    return change


def other_key_order(rng, content):
    records = [json.loads(line) for line in lines_of(content)]
    return json_lines(
        [dict([*rng.sample(list(r.items()), len(r)), ("unused", None)]) for r in records]
    )


def lose_key_everywhere(rng, content):
    records = [json.loads(line) for line in lines_of(content)]
    key = rng.choice(list(records[0]))
    return json_lines([{name: value for name, value in r.items() if name != key} for r in records])


JSON_BREAKERS = [cut_record, no_record, spoil_record]
JSON_HARMLESS = [*HARMLESS, other_key_order]
