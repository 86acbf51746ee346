"""What several tests share: running a script within this process, and one short training."""

import sys

import pytest

from extras import cli
import train


@pytest.fixture
def script(monkeypatch, capsys):
    """Call as script(module, "--option", "value"): -> exit status, output, error output."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.run(module.main)
            status = 0
        except SystemExit as exit:
            status = exit.code
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


@pytest.fixture
def refused(script):
    """Call as refused(module, *arguments): -> the one line that says why."""

    def run(module, *arguments):
        status, _, errors = script(module, *arguments)
        assert status == 2, errors
        assert "Traceback" not in errors
        lines = [line for line in errors.splitlines() if line.strip()]
        assert len(lines) == 1, errors
        return lines[0]

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a short run of the `tiny` preset."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--preset", "tiny", "--run", str(folder), "--steps-per-epoch", "40"]
        patch.setattr(sys, "argv", ["train.py", *arguments, "--epochs", "3"])
        train.main()
    return folder
