from __future__ import annotations

import builtins

import pytest

from canary import door


def test_an_interrupt_amid_the_imports_is_one_line(monkeypatch, capsys):
    """Whoever changes their mind at once sees no traceback."""
    whole = builtins.__import__

    def interrupted(name, *rest):
        if name == "canary.cli":
            raise KeyboardInterrupt
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        door.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "linnet: interrupted\n"
