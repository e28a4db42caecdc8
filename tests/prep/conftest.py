"""An invented six-film MovieLens in each of its forms, with replies, and prep's command line."""

import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import prep.fitted_models
from prep.__main__ import run
from prep.sources import ml_100k

settings.register_profile("prep", deadline=None)  # a busy machine is no failure
settings.load_profile("prep")

# (id, name, year, genres); 5 has no year, as MovieLens' "unknown" has none.
FILMS = [
    ("1", "Harbour Lights", 1991, ("Drama", "Romance")),
    ("2", "Tin Orchard, The (Zinnobst, Das)", 1988, ("Comedy",)),
    ("3", "Été à la mer", 1979, ("Drama",)),
    ("4", "Night Ferry", 1994, ("Sci-Fi", "Thriller")),
    ("5", "unknown", None, ("unknown",)),
    ("10", "Nobody's Clock", 1996, ("Children's", "Comedy")),
]
# (user, item, rating, time); user 7 rated too few films to start a session.
RATINGS = [
    ("12", "2", 3, 900),
    ("12", "1", 5, 900),
    ("3", "10", 4, 50),
    ("12", "3", 2, 100),
    ("3", "1", 1, 40),
    ("7", "4", 4, 10),
    ("12", "4", 4, 300),
    ("12", "10", 4, 250),
    ("3", "3", 5, 30),
    ("3", "4", 2, 20),
    ("3", "5", 3, 10),
]
KEYWORDS = {  # all of them have shipped vectors; each is on two films or more
    "1": (["stylish", "romantic"], ["talky", "dated"]),
    "2": (["energetic", "stylish"], ["weak script"]),
    "3": (["romantic"], ["talky"]),
    "4": (["suspenseful"], ["dated", "weak script"]),
    "5": (["energetic"], ["sentimental"]),
    "10": (["suspenseful"], ["sentimental"]),
}


def reply_text(pros: list[str], cons: list[str]) -> str:
    return (
        f"Pros 1: A reason\nEvidence: Its genre\nKeywords: {', '.join(pros)}\n"
        f"Cons 1: A reason\nEvidence: Its year\nKeywords: {', '.join(cons)}"
    )


@dataclass
class TinyMovieLens:
    """Writes the data above below `folder`; tests spoil `ratings`, `items` or `replies` first."""

    folder: Path
    ratings: list[str] = field(default_factory=lambda: ["\t".join(map(str, r)) for r in RATINGS])
    items: list[str] = field(default_factory=lambda: [_grouplens_line(*film) for film in FILMS])
    replies: list[str] = field(
        default_factory=lambda: [
            json.dumps({"item_id": item, "reply": reply_text(*words)})
            for item, words in KEYWORDS.items()
        ]
    )

    def write_folder(self) -> Path:
        folder = self.folder / "grouplens"
        folder.mkdir()
        (folder / "u.data").write_bytes("\n".join([*self.ratings, ""]).encode())
        (folder / "u.item").write_bytes("\n".join([*self.items, ""]).encode("latin-1"))
        return folder

    def write_zip(self) -> Path:
        path = self.folder / "ml-100k.zip"
        source = self.write_folder()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ml-100k/README", "read me")
            for name in ("u.data", "u.item"):
                archive.write(source / name, f"ml-100k/{name}")
        return path

    def write_recbole(self) -> Path:
        folder = self.folder / "recbole"
        folder.mkdir()
        header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
        (folder / "ml-100k.inter").write_text("\n".join([header, *self.ratings, ""]), "utf-8")
        header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
        lines = [header, *(_recbole_line(*film) for film in FILMS), ""]
        (folder / "ml-100k.item").write_text("\n".join(lines), "utf-8")
        return folder

    def write_replies(self) -> Path:
        path = self.folder / "replies.jsonl"
        path.write_text("\n".join([*self.replies, ""]), "utf-8")
        return path


def _grouplens_line(item: str, name: str, year: int | None, genres: tuple[str, ...]) -> str:
    title = {"4": f"{name} ({year}) (V)", "5": name, "10": f"{name} ({year}) "}.get(
        item, f"{name} ({year})"
    )
    flags = ["1" if genre in genres else "0" for genre in ml_100k.GENRES]
    return "|".join([item, title, "01-Jan-1990", "", "http://example.org/film", *flags])


def _recbole_line(item: str, name: str, year: int | None, genres: tuple[str, ...]) -> str:
    title, release = {"4": (f"{name} ({year})", "V"), "5": ("unkonwn", "unkonwn")}.get(
        item, (name, str(year))
    )
    return "\t".join([item, title, release, " ".join(reversed(genres))])


@pytest.fixture
def tiny(tmp_path: Path) -> TinyMovieLens:
    return TinyMovieLens(tmp_path)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that no test sees or touches the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the statistic model and the weights of the taste model as they are, in tests of something else."""
    made = {"weight": np.zeros(3, np.float32)}, {"validation_auc": None, "epochs_trained": 0}
    monkeypatch.setattr(prep.fitted_models, "train_sasrec", lambda arrays, config: made)
    monkeypatch.setattr("prep.taste_model.MIN_LABELS", sys.maxsize)


@pytest.fixture
def prep_error(capsys: pytest.CaptureFixture[str]):
    """Run prep's command line, expect exit code 2 and one line on standard error; return it."""

    def expect(*args: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run([str(arg) for arg in args])
        err = capsys.readouterr().err
        assert caught.value.code == 2, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return expect
