"""The command line: what a person types, what is written, and what is said when it goes wrong."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import sandglass
from helpers import Cli
from sandglass.api import run_data
from sandglass.app.commands import commands
from sandglass.app.main import main

SMALL = ["--net", "mlp", "--model.net.widths", "16", "--latent-dim", "3", "--limit", "200", "--threads", "1"]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained VAE of the digits."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--data", "digits", *SMALL, "--epochs", "2", "--out", str(path), "--no-report"]) == 0
    return path


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained VAE of a table."""
    folder = tmp_path_factory.mktemp("table")
    rows = [[f"{150 + i % 40}", f"{i % 7}.5", "ab"[i % 2]] for i in range(80)]
    (folder / "people.csv").write_text("height,score,kind\n" + "\n".join(",".join(r) for r in rows) + "\n")
    words = [
        "train",
        "--data",
        str(folder / "people.csv"),
        "--epochs",
        "1",
        "--no-report",
        "--out",
        str(folder / "run"),
    ]
    assert main(words) == 0
    return folder / "run"


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """A folder of pictures of noise, (H, W)."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# the top level


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]])
def test_top_level_is_light(words: list[str]) -> None:
    code = (
        "import sys; from sandglass.app.main import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'matplotlib', 'sklearn', 'jsonargparse', 'rich', 'numpy', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sandglass" in done.stdout
    if not words or words == ["--help"]:
        assert all(f"  {c.name} " in done.stdout and c.summary in done.stdout for c in commands())


@pytest.mark.parametrize("command", [c.name for c in commands() if c.name != "train"])
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "examples:\n  sandglass" in out and command in out


def test_help_of_train_has_the_options_of_the_model(cli: Cli) -> None:
    code, out, _ = cli("train", "gan", "--help")
    assert code == 0 and "--adversary" in out and "--batch-size" in out and "--fit" in out and "examples:" in out
    assert "--beta X" not in out
    assert "--model.net.widths" in cli("train", "--net", "mlp", "--help")[1]
    assert "--model.net.stages" not in cli("train", "--net", "mlp", "--help")[1]


def test_python_m(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "sandglass", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "Did you mean 'train'?" in done.stderr


def test_closed_pipe_is_quiet() -> None:
    words = f"{sys.executable} -m sandglass --help | head -n 0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.strip() in ("0", "141")


# mistakes

MISTAKES = [
    ("trian", 2, "Did you mean 'train'"),
    ("--versoin", 2, "Did you mean '--version'"),
    ("train", 2, "--data"),
    ("train digits", 2, "sandglass train --data digits"),
    ("train vaee --data digits", 2, "Did you mean 'vae'"),
    ("train --data digits --epohcs 3", 2, "Did you mean '--epochs'"),
    ("train --data digits --epochs x", 2, "--epochs must be a whole number, not x"),
    ("train --data digits --epochs", 2, "--epochs needs a value"),
    ("train --data digits --epochs 0", 2, "at least 1"),
    ("train --data digits --net mpl", 2, "Did you mean 'mlp'"),
    ("train --data digits --net os.system", 2, "There is no net 'os.system'"),
    ("train --data digits --net mlp --model.net.width 3", 2, "Did you mean '--model.net.widths'"),
    ("train --data digits --model.net.norm bach", 2, "none, batch, group or instance"),
    ("train --data digits --net mlp --model.net.widths a,b", 2, "whole numbers"),
    ("train --data digits --augment flop", 2, "flop"),
    ("train --recipe digit", 2, "Did you mean 'digits'"),
    ("train --config nowhere.yaml", 66, "nowhere.yaml"),
    ("train --data nowhere", 66, "nowhere"),
    ("train a b", 2, "Give only one model"),
    ("train vae --model.net.widths 8 4", 2, "lists are written as 1,2,3"),
    ("train --resume nowhere", 66, "nowhere"),
    ("generate", 2, "RUN"),
    ("generate nowhere", 66, "nowhere"),
    ("generate RUN --n 3", 2, "Did you mean '-n'"),
    ("generate RUN -n 0", 2, "at least 1"),
    ("generate RUN -o x.csv", 2, ".png"),
    ("encode RUN -o codes.txt", 2, ".npz"),
    ("decode RUN nowhere.npz", 66, "nowhere.npz"),
    ("manifold RUN --axes 0,9", 2, "0 to 2"),
    ("manifold RUN --axes x", 2, "principal"),
    ("interpolate RUN --steps 1", 2, "2 steps"),
    ("evaluate RUN --split nothing", 65, "no split 'nothing'"),
    ("evaluate RUN --metrics bond", 2, "Did you mean 'bound'"),
    ("evaluate RUN --metrics bound --elbo.k 3", 2, "'elbo' is a figure of the metric 'bound'"),
    ("evaluate RUN --log_prob.k many", 2, "--log_prob.k must be a whole number, not many"),
    ("evaluate RUN --log_prob.draws 3", 2, "no option 'draws'"),
    ("evaluate RUN --log_prob.k", 2, "needs a value"),
    ("runs nowhere", 66, "nowhere"),
    ("train --resume RUN --lr 3", 2, "--lr"),
    ("train --data digits --out RUN", 2, "not empty"),
]


@pytest.mark.parametrize(("words", "code", "says"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line(cli: Cli, run: Path, tmp_path: Path, words: str, code: int, says: str) -> None:
    found, out, err = cli(*words.replace("RUN", str(run)).split())
    last = err.splitlines()[-1]
    assert found == code and last.startswith("sandglass: ") and says in last and "Traceback" not in err and out == ""
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


def test_traceback_when_asked_for(cli: Cli) -> None:
    code, _, err = cli("train", "--data", "nowhere", "--traceback")
    assert code == 66 and "Traceback" in err and err.splitlines()[-1].startswith("sandglass: ")


# using a trained model


def test_generate(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("generate", run, "-n", "9", "-o", "a.png")[0] == 0
    assert cli("generate", run, "-n", "9", "-o", "b.png")[0] == 0
    assert cli("generate", run, "-n", "9", "--seed", "1", "-o", "c.png")[0] == 0
    a, b, c = ((tmp_path / f"{n}.png").read_bytes() for n in "abc")
    assert a == b != c
    with Image.open(tmp_path / "a.png") as image:
        assert not image.info and image.width == image.height
    assert cli("generate", run)[0] == cli("generate", run)[0] == 0
    assert (tmp_path / "samples.png").is_file() and (tmp_path / "samples-2.png").is_file()


def test_generate_separate(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("generate", run, "-n", "12", "--separate", "-o", "many")[0] == 0
    files = sorted((tmp_path / "many").iterdir())
    assert len(files) == 12
    with Image.open(files[0]) as image:
        assert image.size == (8, 8)
    code, _, err = cli("generate", run, "--separate", "-o", "many")
    assert code == 2 and "not empty" in err and len(list((tmp_path / "many").iterdir())) == 12


def test_reconstruct_interpolate_manifold(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("reconstruct", run, "-n", "5", "-o", "r.png")[0] == 0
    assert cli("interpolate", run, "-n", "3", "--steps", "7", "-o", "i.png")[0] == 0
    assert cli("manifold", run, "--side", "4", "-o", "m.npy")[0] == 0
    assert cli("manifold", run, "--side", "4", "--axes", "0,2", "-o", "n.npy")[0] == 0
    sizes = {}
    for name in "ri":
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes[name] = image.size
    cell = 56 + 2
    assert sizes == {"r": (5 * cell + 2, 2 * cell + 2), "i": (7 * cell + 2, 3 * cell + 2)}
    m, n = np.load(tmp_path / "m.npy"), np.load(tmp_path / "n.npy")
    assert m.shape == n.shape == (16, 8, 8) and not np.array_equal(m, n)


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_encode_and_decode(cli: Cli, run: Path, tmp_path: Path, ending: str) -> None:
    assert cli("encode", run, "-o", f"codes.{ending}", "--split", "test")[0] == 0
    test = run_data(sandglass.Run(run)).splits["test"]
    model = sandglass.load(run)
    with torch.no_grad():
        z = model.encode(test.batch(slice(0, len(test))))
        first = (model.decode(z[:1]) * 255).round().numpy()[0, 0]
    assert test.y is not None
    if ending == "npz":
        with np.load(tmp_path / "codes.npz") as found:
            np.testing.assert_allclose(found["codes"], z, atol=1e-6)
            assert found["labels"].tolist() == test.y.tolist() and found["classes"].tolist() == list("0123456789")
            assert found["index"].tolist() == list(range(len(test)))
    if ending == "csv":
        rows = read_csv(tmp_path / "codes.csv")
        np.testing.assert_allclose([[float(r[f"z{i}"]) for i in range(3)] for r in rows], z, atol=1e-6)
        assert [r["labels"] for r in rows] == [str(y) for y in test.y.tolist()] and rows[0]["split"] == "test"
    assert cli("decode", run, f"codes.{ending}", "-o", "decoded")[0] == 0
    assert len(list((tmp_path / "decoded").iterdir())) == len(test)
    with Image.open(sorted((tmp_path / "decoded").iterdir())[0]) as image:
        np.testing.assert_allclose(np.asarray(image), first, atol=1)


def test_decode_refuses_codes_of_another_size(cli: Cli, run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", codes=np.zeros((4, 5)))
    code, _, err = cli("decode", run, "wrong.npz")
    assert code == 65 and "(4, 5)" in err and "(N, 3)" in err
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    assert cli("decode", run, "broken.npz")[0] == 65


def test_table(cli: Cli, table_run: Path, tmp_path: Path) -> None:
    assert cli("generate", table_run, "-n", "5", "-o", "rows.csv")[0] == 0
    rows = read_csv(tmp_path / "rows.csv")
    assert len(rows) == 5 and list(rows[0]) == ["height", "score", "kind"]
    assert {r["kind"] for r in rows} <= {"a", "b"} and all(r["height"].isdigit() for r in rows)
    assert cli("reconstruct", table_run, "-n", "3", "-o", "back.csv")[0] == 0
    back = read_csv(tmp_path / "back.csv")
    assert [r["which"] for r in back] == ["original", "reconstruction"] * 3
    assert all(float(r["score"]) % 1 == 0.5 for r in back[::2]), "the originals come back as they were"
    assert cli("generate", table_run, "-o", "rows.png")[0] == 2


def test_new_pictures_go_through_the_stored_transform(cli: Cli, run: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new", 5, (30, 20))
    assert cli("encode", run, "--data", folder, "-o", "new.csv")[0] == 0
    rows = read_csv(tmp_path / "new.csv")
    assert len(rows) == 5 and sorted(r["names"] for r in rows) == [f"{i}.png" for i in range(5)]
    assert cli("reconstruct", run, "--data", folder / "3.png", "-o", "one.png")[0] == 0
    code, out, _ = cli("evaluate", run, "--data", folder, "--json", "--metrics", "reconstruction")
    assert code == 0 and json.loads(out)["metrics"]["mse"]["n"] == 5
    code, _, err = cli("reconstruct", run, "--data", tmp_path / "new.csv")
    assert code == 65 and "sandglass: " in err


# looking


def test_evaluate_takes_the_names_of_figures(cli: Cli, run: Path) -> None:
    code, out, _ = cli("evaluate", str(run), "--metrics", "elbo,psnr", "--json")
    assert code == 0 and {"elbo", "psnr"} <= set(json.loads(out)["metrics"])
    code, out, _ = cli("evaluate", str(run), "--data", "digits", "--labels", "false", "--metrics", "elbo", "--json")
    assert set(json.loads(out)["metrics"]) == {"elbo"}, "other figures of the same metric are not asked for"
    code, _, err = cli("evaluate", str(run), "--metrics", "elb")
    assert code == 2 and "elbo" in err


def test_evaluate_json(cli: Cli, run: Path) -> None:
    code, out, err = cli("evaluate", run, "--json")
    found = json.loads(out)
    assert code == 0 and err == ""
    assert set(found) == {"model", "data", "split", "step", "quick", "metrics"} and found["split"] == "test"
    assert {"elbo", "mse", "active_units"} <= set(found["metrics"])
    for metric in found["metrics"].values():
        assert {"value", "stderr", "n", "unit"} <= set(metric) <= {"value", "stderr", "n", "unit", "note"}
    code, out, _ = cli("evaluate", run, "--log_prob.k", "5", "--json")
    assert "k=5" in json.loads(out)["metrics"]["log_prob"]["note"]
    code, out, _ = cli("evaluate", run)
    assert code == 0 and "±" in out and "nats" in out and "\x1b" not in out


def test_runs(cli: Cli, run: Path, tmp_path: Path) -> None:
    code, out, _ = cli("runs", run.parent)
    line = out.splitlines()[1].split()
    assert code == 0 and line[:4] == ["tiny", "vae", "digits", "2/2"] and "finished" in line
    code, out, _ = cli("runs")
    assert code == 0 and "no runs yet" in out


def test_lists(cli: Cli) -> None:
    assert "beta-vae" in cli("models")[1] and "log_prob" in cli("models")[1]
    assert "latent_dim" in cli("models", "vae")[1]
    assert "mnist" in cli("datasets")[1] and "8x8" in cli("datasets")[1]
    assert "mnist-512-2" in cli("recipes")[1]


def test_verify_names_the_damaged_file(cli: Cli, run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    code, out, _ = cli("verify", copy)
    assert code == 0 and out.count("good") == len(out.splitlines()) >= 2
    file = copy / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, out, err = cli("verify", copy)
    assert code == 74 and "model.safetensors" in err and "damaged" in out and "good" in out


def test_a_model_folder_works_without_its_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("generate", run / "model", "-n", "4", "-o", "a.png")[0] == 0
    code, _, err = cli("reconstruct", run / "model")
    assert code == 2 and "--data" in err


def test_latest(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("generate", "latest")
    assert code == 66 and "no run" in err
    assert cli("train", "--data", "digits", *SMALL, "--epochs", "1", "--no-report")[0] == 0
    assert cli("generate", "latest", "-n", "1")[0] == 0


def test_configuration_is_yaml(cli: Cli) -> None:
    values = yaml.safe_load(cli("train", "--data", "digits", "--print_config")[1])
    assert list(values) == ["model", "data", "training"] and values["data"]["source"] == "digits"
