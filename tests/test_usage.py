"""A mistake on a command line costs one line of ours, or tyro's box, and nothing else."""

import dataclasses
import shutil

import pytest
from helpers import CLIPS, files_in
from helpers import prepare as write_prepared

import animate
import data
import predict
import prepare
import train
from extras import runs

REFUSED = [
    (data, "--seed -1", "--seed -1"),
    (train, "--run FILE/run", "name another folder"),
    (train, "--init NOTHING", "no such model"),
    (train, "--resume NOTHING", "there is no run"),
    (train, "--config A-RUN --preset gpu --run RUN", "give one of them"),
    (train, "--config A-RUN", "--run DIR"),
    (train, "--resume A-RUN --run RUN", "no other option than --epochs"),
    (train, "--resume A-RUN --batch-size 9", "started with batch_size 2, and now it is 9"),
    (train, "--resume A-RUN --epochs 8", "has done 6 epochs"),
    (train, "--resume A-RUN --epochs 4", "would take some back"),
    (train, "--context 20", "--frames 20 leaves nothing to predict after --context 20"),
    (train, "--batch-size 200000", "lower one of them"),
    (train, "--preset keras-example --remat", "not for keras-example"),
    (train, "--data NOTHING", "no such file; if it has moved, name its new place by --data"),
    (train, "--data FILE", "python prepare.py"),
    (train, "--data FILE --size 32", "--size is for moving-mnist alone"),
    (predict, "A-RUN --count 10001", "10,000 videos"),
    (predict, "A-RUN --data tset", "tset"),
    (predict, "A-RUN --out FILE", "name another folder"),
    (animate, "A-RUN --format mp4 --page", "--page"),
    (prepare, "A-RUN", "SOURCE and OUT"),
    (prepare, "A-RUN OUT --size 3", "--size"),
    (prepare, "A-RUN OUT --stride 0", "--stride 0"),
    (prepare, "A-RUN OUT --fps inf", "--fps inf"),
    (prepare, "A-RUN OUT --fps 5", "use --stride"),
    (prepare, "A-RUN OUT --range 1 1", "--range 1 1"),
    (prepare, "A-RUN OUT --range 0 1e308", "--range 0 1e+308"),
    (prepare, "A-RUN OUT --range nan 1", "--range nan"),
    (prepare, "A-RUN OUT --axes TTHW", "--axes"),
    (prepare, "A-RUN OUT --variable rain", "--variable is for arrays"),
    (prepare, "A-RUN OUT --grey --colour", "--grey"),
    (prepare, "A-RUN OUT --like NOTHING", "no such file"),
    (prepare, "A-RUN OUT --like FILE", "python prepare.py FILE OUT"),
]
MISREAD = [
    (data, "--offical", "--offical"),
    (train, "--data=", "at least 1 character"),
    (train, "--preset huge", "huge"),
    (train, "runs/tiny", "runs/tiny"),
    (train, "--size 24", "size Input should be greater than or equal to 28"),
    (predict, "--count 0", "count"),
    (predict, "--horizon 10000000000000000000000", "less than or equal to 1000"),
    (predict, "--sprites -1", "sprites"),
    (animate, "--format avi", "gif"),
]


@pytest.mark.parametrize("module, line, reason", REFUSED)
def test_nonsense_is_refused(refused, quick_run, tmp_path, monkeypatch, module, line, reason):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    assert reason in refused(module, *line.replace("A-RUN", str(quick_run)).split())
    assert files_in(tmp_path) == {"FILE"}


@pytest.mark.parametrize("module, line, reason", MISREAD)
def test_what_cannot_be_read_is_said_in_a_box(script, tmp_path, monkeypatch, module, line, reason):
    monkeypatch.chdir(tmp_path)
    status, _, errors = script(module, *line.split())
    text = " ".join(" ".join(line.strip("│╭╮╰╯─- ") for line in errors.splitlines()).split())
    assert status == 2 and reason in text and "Traceback" not in errors
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("module, name", [(predict, "predictions.npz"), (animate, "index.html")])
def test_no_input_is_written_over(refused, run_on_clips, tmp_path, monkeypatch, module, name):
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / name, CLIPS)  # a prepared file may have any name
    before = (tmp_path / name).read_bytes()
    (tmp_path / "linked").symlink_to(".")  # and a folder many
    run = shutil.copytree(run_on_clips, tmp_path / "run")
    trained_on_it = dataclasses.replace(train.read_config(run), data=str(tmp_path / name))
    runs.write_config(run, trained_on_it)
    options = ["--out", "linked", *["--page"] * (module is animate)]
    for clips in (name, "validation"):
        assert "is an input" in refused(module, run, "--data", clips, *options)
    assert (tmp_path / name).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {name, "linked", "run"}


@pytest.mark.parametrize("module", [data, train, predict, animate, prepare])
def test_help_is_read_before_anything_is_built(script, monkeypatch, module):
    monkeypatch.delattr("model.NextFrameModel.__init__")
    status, output, _ = script(module, "--help")
    assert status == 0 and any(option in output for option in ("--seed", "--preset", "--like"))
