"""Files of replies: every line is read, or left out and counted."""

import gzip
import json

import pytest

from jaxsim import InputError
from prep.replies.files import Reply, read_replies, reply_writer


def write(path, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_plain_and_gzipped_files_read_alike(tmp_path):
    plain = write(
        tmp_path / "r.jsonl",
        {"item_id": 3, "reply": "é"},
        "",
        {"item_id": "4", "user_id": 7, "reply": "", "prompt": "?", "finish_reason": "length"},
        {"item_id": "4", "user_id": None, "reply": "x", "finish_reason": "stop"},
    )
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n")))
    file = read_replies(plain)
    assert file.lines == [
        Reply(f"{plain}:1", "3", "é"),
        Reply(f"{plain}:3", "4", "", "7", cut=True),
        Reply(f"{plain}:4", "4", "x"),
    ]
    assert file.skipped.total == 0
    assert len(file.sha256) == 64
    assert [line[1:] for line in read_replies(packed).lines] == [line[1:] for line in file.lines]


BAD_LINES = {
    "{": "not JSON",
    "[" * 100_000: "not JSON",
    '{"item_id": ' + "9" * 5000 + ', "reply": "x"}': "not JSON",
    "[1]": "not a JSON object with item_id and reply",
    '{"reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": "", "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": true, "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": 1.0, "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": 1, "user_id": [], "reply": "x"}': "user_id is not a string or whole number",
    '{"item_id": 1}': "reply is missing, or is not a string",
    '{"item_id": 1, "reply": null}': "reply is missing, or is not a string",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_a_line_that_cannot_be_read_is_counted_or_stops_a_strict_reader(tmp_path, capsys, line):
    good = {"item_id": 1, "reply": "x"}
    path = write(tmp_path / "r.jsonl", good, line, line)
    file = read_replies(path)
    assert [reply.place for reply in file.lines] == [f"{path}:1"]
    assert file.skipped.counts == {BAD_LINES[line]: 2}
    assert file.skipped.first == {BAD_LINES[line]: 2}
    assert capsys.readouterr().err.count(f"{path}:2: {BAD_LINES[line]}") == 1
    with pytest.raises(InputError) as caught:
        read_replies(path, strict=True)
    assert str(caught.value).startswith(f"{path}:2: {BAD_LINES[line]}")


def test_text_that_is_not_utf_8_is_a_bad_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"item_id": 1, "reply": "\xe9"}\n{"item_id": 1, "reply": "e"}')
    assert read_replies(path).skipped.counts == {"not valid UTF-8 text": 1}


def test_a_file_without_a_readable_line_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"r\.jsonl:1: not JSON"):
        read_replies(write(tmp_path / "r.jsonl", "item_id,reply", "[]"))
    with pytest.raises(InputError, match=r"empty\.jsonl: the file is empty"):
        read_replies(write(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        read_replies(tmp_path / "none.jsonl")


def test_what_is_written_reads_back_and_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "folder" / "r.jsonl"
    replies = [Reply("", "1", "Été\n\u2028"), Reply("", "1", "x", "u", cut=True)]
    with reply_writer(path, {"model": "tiny"}) as write:
        for reply in replies:
            write(reply)
    assert [line[1:] for line in read_replies(path).lines] == [reply[1:] for reply in replies]
    assert json.loads(path.read_text("utf-8").split("\n")[0])["model"] == "tiny"
    before = path.read_bytes()

    def fail():
        with reply_writer(path, {}) as write:
            write(replies[0])
            raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        fail()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
