import pytest

from prep.download import FetchError
from prep.pip_wheel import pip_wheel


def test_pip_failing_is_a_reason_and_no_traceback(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with (
        pytest.raises(FetchError, match="No matching distribution"),
        pip_wheel("recbole==1.2.1", ""),
    ):
        pass
    assert capfd.readouterr().err == ""
