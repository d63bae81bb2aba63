"""The layout of the package: imports point down."""

from importlinter.cli import lint_imports


def test_imports_point_down(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert lint_imports() == 0
