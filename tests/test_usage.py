"""What a command line says wrongly is said in one line of ours, or in tyro's box, and costs nothing."""

import pytest
from helpers import CLIPS, files_in, prepare

import animate
import data
import predict
import train

REFUSED = [
    (data, "--seed -1", "--seed -1"),
    (data, "--out FILE", "name another folder"),
    (train, "--run FILE", "name another folder"),
    (train, "--run FILE/run", "name another folder"),
    (train, "--init NOTHING", "no such model"),
    (train, "--resume NOTHING", "there is no run"),
    (train, "--resume FILE", "there is no run"),
    (train, "--config NOTHING --run RUN", "there is no run"),
    (train, "--config A-RUN --preset gpu --run RUN", "give one of them"),
    (train, "--config A-RUN", "--run DIR"),
    (train, "--resume A-RUN --preset gpu", "no other option than --epochs"),
    (train, "--resume A-RUN --run RUN", "no other option than --epochs"),
    (train, "--resume A-RUN --config A-RUN", "no other option than --epochs"),
    (train, "--resume A-RUN --batch-size 9", "started with batch_size 2, and now it is 9"),
    (train, "--resume A-RUN --loss binary_crossentropy", "only epochs may change"),
    (train, "--resume A-RUN --epochs 8", "has done 6 epochs"),
    (train, "--context 20", "--frames 20 leaves nothing to predict after --context 20"),
    (train, "--batch-size 200000", "lower one of them"),
    (train, "--preset keras-example --remat", "not for keras-example"),
    (train, "--data NOTHING", "no such file"),
    (train, "--data FILE", "python prepare.py"),
    (train, "--data FILE --size 32", "--size is for moving-mnist alone"),
    (predict, "NOTHING", "no such model"),
    (predict, "A-RUN --count 10001", "10,000 videos"),
    (predict, "A-RUN --data tset", "tset"),
    (predict, "A-RUN --out FILE", "name another folder"),
    (animate, "A-RUN --format mp4 --page", "--page"),
]
MISREAD = [
    (data, "--seed x", "--seed"),
    (data, "--offical", "--offical"),
    (train, "--data=", "at least 1 character"),
    (train, "--preset huge", "huge"),
    (train, "--epochs many", "--epochs"),
    (train, "--epoch 3", "--epoch"),
    (train, "--depths 1", "--depths"),
    (train, "--remat=3", "3"),
    (train, "runs/tiny", "runs/tiny"),
    (train, "--log mlflow", "tensorboard"),
    (train, "--global-clipnorm nan", "global_clipnorm"),
    (train, "--size 24", "size Input should be greater than or equal to 28"),
    (predict, "--count 0", "count"),
    (predict, "--context 0", "context"),
    (predict, "--horizon 10000000000000000000000", "less than or equal to 1000"),
    (predict, "--seed -1", "seed"),
    (predict, "--sprites -1", "sprites"),
    (predict, "--coutn 3", "--coutn"),
    (animate, "--count 0", "count"),
    (animate, "--format avi", "gif"),
]


@pytest.mark.parametrize("module, line, reason", REFUSED)
def test_what_makes_no_sense_is_refused(
    refused, quick_run, tmp_path, monkeypatch, module, line, reason
):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    assert reason in refused(module, *line.replace("A-RUN", str(quick_run)).split())
    assert files_in(tmp_path) == {"FILE"}


@pytest.mark.parametrize("module, line, reason", MISREAD)
def test_what_cannot_be_read_is_said_in_a_box(misread, tmp_path, monkeypatch, module, line, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in misread(module, *line.split())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("spelling", ["mine", "sub/../mine", "linked"])
def test_an_input_is_not_written_over_however_its_folder_is_spelt(
    refused, run_on_clips, tmp_path, monkeypatch, spelling
):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "sub"):
        (tmp_path / folder).mkdir()
    (tmp_path / "linked").symlink_to("mine")
    clips = tmp_path / "mine" / "predictions.npz"  # a prepared file may have any name
    prepare(clips, CLIPS[:1])
    before = clips.read_bytes()
    line = refused(predict, run_on_clips, "--data", "mine/predictions.npz", "--out", spelling)
    assert "is an input" in line
    assert clips.read_bytes() == before and files_in(tmp_path) == {"predictions.npz"}


@pytest.mark.parametrize("module", [data, train, predict, animate])
def test_help_is_read_before_anything_is_built(script, monkeypatch, module):
    monkeypatch.delattr("model.NextFrameModel.__init__")
    status, output, _ = script(module, "--help")
    assert status == 0 and ("--seed" in output or "--preset" in output)
