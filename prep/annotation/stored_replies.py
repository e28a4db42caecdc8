"""Looking into a store of replies: `python -m prep replies show` and `python -m prep replies export`."""

from pathlib import Path
from typing import Any

from jaxsim import InputError
from jaxsim.files import check_writable
from jaxsim.tables import format_table
from prep.annotation.annotate import store_path
from prep.annotation.exchange import Exchange
from prep.annotation.store import ReplyStore, StoredPrompt
from prep.annotation.tasks import Task
from prep.replies.files import reply_writer

_COLUMNS = (
    "settings", "version", "model", "revision", "sampling", "prompt",
    "prompts", "answered", "replies", "tokens in", "tokens out",
)  # fmt: skip


def format_store(store_name: str) -> str:
    """Describe a store: a line for each language model, its settings and kind of prompt.

    Args:
        store_name: the path of the store, or the name of a dataset whose store is in the cache folder.

    Raises:
        InputError: there is no such store, or it cannot be read.
    """
    with ReplyStore(_existing_store(store_name)) as store:
        rows = [(*row[:6], *(f"{number:,}" for number in row[6:])) for row in store.summary()]
        return "\n".join([str(store.path), format_table(_COLUMNS, rows, left=(1, 2, 3, 4, 5))])


def format_prompts(store_name: str, item_id: str, user_id: str | None) -> str:
    """Show the prompts about an item or a review, their replies, and what the parser makes of them.

    Args:
        store_name: as for `format_store`.
        item_id: raw id of the item.
        user_id: raw id of the user whose review it is; None for the prompts about the item itself.

    Raises:
        InputError: there is no such store or no such prompt, or the store cannot be read.
    """
    with ReplyStore(_existing_store(store_name)) as store:
        prompts = store.prompts_about(item_id, user_id)
        if not prompts:
            user = "" if user_id is None else f" and user {user_id}"
            raise InputError(f"{store.path}: no prompt about item {item_id}{user}")
        return "\n\n".join(_format_prompt(prompt) for prompt in prompts)


def export_replies(store_name: str, out: Path, settings_id: int | None) -> int:
    """Write the replies of one language model as JSON lines, for `build --replies`.

    Of each item and review, the latest prompt that has a reply counts: its first usable reply or, if there is
        none, its
    last one.

    Args:
        store_name: as for `format_store`.
        out: the file to write, whole or not at all.
        settings_id: which language model and settings, by their number in `format_store`; may be None if the store
            has only one.

    Returns:
        How many replies were written.

    Raises:
        InputError: there is no such store, it cannot be read, nothing says which settings are meant, or the file
            cannot be written.
    """
    path = _existing_store(store_name)
    check_writable(out)
    if out.is_dir() or (out.exists() and out.samefile(path)):
        raise InputError(f"--out {out}: is a folder or the store itself; give another file")
    with ReplyStore(path) as store:
        settings = _choose_settings(store, settings_id)
        about = dict(zip(("prompt_version", "model", "revision"), settings[1:4], strict=True))
        count = 0
        with reply_writer(out, about) as write:
            for prompt in store.latest_prompts(settings[0]):
                for reply in _exchange(prompt).replies(str(path)):
                    write(reply)
                    count += 1
        return count


def _existing_store(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        path = store_path(name)
        if not path.exists():
            raise InputError(f"{name}: neither a store of replies nor a dataset with one ({path})")
    return path


def _choose_settings(store: ReplyStore, settings_id: int | None) -> tuple[Any, ...]:
    """The row of `ReplyStore.summary` with the settings that are exported."""
    rows = {row[0]: row for row in store.summary()}
    numbers = ", ".join(map(str, rows))
    if not rows:
        raise InputError(f"{store.path}: the store is empty")
    if settings_id is None and len(rows) > 1:
        raise InputError(
            f"{store.path}: holds replies with several settings; choose one of --settings {numbers} "
            "(python -m prep replies show describes them)"
        )
    if settings_id is not None and settings_id not in rows:
        raise InputError(f"--settings {settings_id}: {store.path} has {numbers}")
    return rows[next(iter(rows)) if settings_id is None else settings_id]


def _format_prompt(stored: StoredPrompt) -> str:
    lines = [f"{stored.prompt_name} (settings {stored.settings_id})", stored.prompt]
    for number, reply in enumerate(stored.replies, start=1):
        exchange = _exchange(stored._replace(replies=[reply]))
        keywords = exchange.parsed.keywords if exchange.parsed else ((), ())
        pros, cons = (", ".join(sorted(words)) or "none" for words in keywords)
        outcome = (
            f"cannot be used: {exchange.problem}"
            if exchange.problem
            else f"keywords pro: {pros}; con: {cons}"
        )
        cut = ", cut" if reply.cut else ""
        lines += [f"--- reply {number} ({reply.tokens_out:,} tokens{cut}) ---", reply.text or ""]
        lines.append(f"--- {outcome} ---")
    return "\n".join(lines if stored.replies else [*lines, "--- no reply ---"])


def _exchange(stored: StoredPrompt) -> Exchange:
    task = Task(
        stored.prompt_name, stored.item_id, stored.user_id, stored.prompt, stored.polarities
    )
    return Exchange.of("", [task], stored.replies)
