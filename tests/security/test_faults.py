"""Full disks, failing disks, places that cannot be written, kills at bad moments: what was saved stays."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import Quiet, fresh, make_loop, pictures
from offer import GOLDEN
from sandglass.app.main import main
from sandglass.errors import CheckpointError, SaveError
from sandglass.runs import storage, weights
from sandglass.runs.lock import hold
from sandglass.runs.run import Run
from sandglass.runs.verify import verify

STEP = 11


@pytest.fixture
def run(tmp_path: Path) -> Run:
    shutil.copytree(GOLDEN / "vae", tmp_path / "run")
    (tmp_path / "run" / "golden.safetensors").unlink()
    return Run(tmp_path / "run")


def leftovers(path: Path) -> list[str]:
    return [str(f) for f in path.rglob(".*")]


class Faults:
    """Lets the n-th call of all that writes fail, and the ones after it where the fault is to last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int, code: int, lasting: bool) -> None:
        self.n, self.code, self.lasting, self.calls = n, code, lasting, 0
        for place, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (Path, "write_bytes"), (Path, "mkdir")):
            monkeypatch.setattr(place, name, self.failing(getattr(place, name)))
        monkeypatch.setattr(weights.safetensors.torch, "save_file", self.failing(weights.safetensors.torch.save_file))

    def failing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.n or (self.lasting and self.calls > self.n):
                raise OSError(self.code, os.strerror(self.code))
            return original(*words, **more)

        return call


def save_all(run: Run) -> None:
    """All that a run writes while it trains."""
    checkpoint = run.read_checkpoint(STEP)
    run.log([{"step": STEP + 1, "epoch": 1.1, "split": "train", "phase": "p", "term": "loss", "value": 1.0, "n": 1}])
    run.save_checkpoint(STEP + 1, checkpoint.tensors, checkpoint.state, {})
    run.point("BEST", STEP + 1)
    run.write_model(checkpoint.tensors["model"], "card", STEP + 1)
    run.write_results({"test": {"metrics": {}}})
    run.rewrite(run.config)


@pytest.mark.parametrize(
    ("code", "lasting"),
    [
        (errno.ENOSPC, False),
        pytest.param(errno.EIO, False, marks=pytest.mark.slow),
        pytest.param(errno.ENOSPC, True, marks=pytest.mark.slow),
    ],
)
def test_every_write_that_fails_leaves_the_old_checkpoint(
    code: int, lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, until nothing is left to fail."""
    for n in range(1, 100):
        path = tmp_path / str(n)
        shutil.copytree(GOLDEN / "vae", path)
        with monkeypatch.context() as patch:
            faults = Faults(patch, n, code, lasting)
            failed = None
            try:
                save_all(Run(path))
            except SaveError as error:
                failed = error
        Run(path).read_checkpoint(STEP)
        checkpoint, _ = Run(path).latest_checkpoint()
        assert checkpoint is not None
        if failed is not None:
            assert str(path) in str(failed) and "MiB free" in str(failed) and failed.exit_code == 73
        with hold(path):
            assert [f for f in leftovers(path) if ".tmp-" in f or ".old-" in f] == []
        assert [p for _, p in verify(Run(path)) if p and "golden" not in p] == []
        if faults.calls < n:
            break
    assert n > 25 and failed is None


SAVES = """
import os, sys
from pathlib import Path
from sandglass.runs import storage
from sandglass.errors import SaveError
try:
    storage.write_folder(Path(sys.argv[1]), {"a": b"new", "b": b"new"}, {"step": 2})
    storage.write_file(Path(sys.argv[1]).parent / "LAST", b"new")
except SaveError as error:
    os._exit(73 if "MiB free" in str(error) else 1)
os._exit(0)
"""


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "mkdir"])
def test_every_call_of_the_system_that_fails_leaves_the_old_folder(call: str, tmp_path: Path) -> None:
    """The system itself is made to fail, so nothing in between can hide it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path / "x"
    for n in range(1, 20):
        shutil.rmtree(folder, ignore_errors=True)
        storage.write_folder(folder, {"a": b"old", "b": b"old"}, {"step": 1})
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={call}:error=ENOSPC:when={n}"]
        done = subprocess.run([*command, sys.executable, "-c", SAVES, str(folder)], capture_output=True, text=True)
        if "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr.strip()[:80]}")
        storage.sweep(tmp_path)
        held = storage.verify_folder(folder)
        assert held["step"] in (1, 2) and leftovers(tmp_path) == []
        if done.returncode == 0:
            break
        assert done.returncode == 73, done.stderr
        # Once the new folder stands under its name, a failing flush of its parent cannot take it back.
        assert held["step"] == 1 or call in ("fsync", "write", "rename")
    assert done.returncode == 0 and n > 1


LIMITED = """
import resource, signal, sys
from sandglass.app.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
sys.exit(main(["train", "--resume", sys.argv[1], "--epochs", "3", "--no-report"]))
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(run: Run) -> None:
    before = {f.name: f.read_bytes() for f in run.checkpoint_path(STEP).iterdir()}
    done = subprocess.run([sys.executable, "-c", LIMITED, str(run.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == SaveError.exit_code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("sandglass: ")]
    assert (
        len(lines) == 1 and "File too large" in lines[0] and "MiB free" in lines[0] and "Traceback" not in done.stderr
    )
    assert {f.name: f.read_bytes() for f in run.checkpoint_path(STEP).iterdir()} == before
    with hold(run.path):
        assert [f for f in leftovers(run.path) if ".tmp" in f] == []


def test_a_nearly_full_disk_is_left_before_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = run.read_checkpoint(STEP)
    size = storage.folder_bytes(run.checkpoint_path(STEP))
    monkeypatch.setattr(storage, "free_bytes", lambda path: 2 * size - 1)
    with pytest.raises(SaveError, match=r"are free.*Free disk space"):
        run.save_checkpoint(STEP + 1, checkpoint.tensors, checkpoint.state, {})
    assert run.steps() == [STEP]
    monkeypatch.setattr(storage, "free_bytes", lambda path: 3 * size)
    run.save_checkpoint(STEP + 1, checkpoint.tensors, checkpoint.state, {})


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Run, set[int]], None]]:
    """Lets the n-th saves of a run fail, counted from 1."""

    def install(run: Run, which: set[int]) -> None:
        real, calls = run.save_checkpoint, iter(range(1, 1000))

        def save(*words: Any) -> None:
            if next(calls) in which:
                raise SaveError("the disk is full (0 MiB free).")
            real(*words)

        monkeypatch.setattr(run, "save_checkpoint", save)

    yield install


def trained(path: Path, failing: Any, which: set[int], **options: Any) -> tuple[Run, Quiet, Any]:
    quiet, data = Quiet(), pictures()
    loop, run = make_loop(fresh("ae", data, net="mlp", latent_dim=2), data, path, progress=quiet,
                          epochs=4, batch_size=25, lr=0.01, keep=9, **options)  # fmt: skip
    failing(run, which)
    try:
        loop.fit()
    except SaveError as error:
        return run, quiet, error
    return run, quiet, loop


def test_a_failed_save_stops_unless_such_errors_are_tolerated(tmp_path: Path, failing: Any) -> None:
    run, _, end = trained(tmp_path / "stop", failing, {2})
    assert isinstance(end, SaveError) and run.steps() == [2]
    run, quiet, loop = trained(tmp_path / "go", failing, {2, 3}, on_save_error="continue")
    assert run.steps() == [2, 8, 9] and loop.now.total == 9  # the last is the density
    assert len([line for line in quiet.said if "Training continues" in line and "step 2 is kept" in line]) == 2
    assert run.pointed("BEST") == loop.now.start and loop.now.start in run.steps()
    assert [p for _, p in verify(Run(run.path)) if p] == []


def test_a_failed_save_is_not_tolerated_without_a_good_one_nor_at_the_end(tmp_path: Path, failing: Any) -> None:
    for name, which in (("first", {1}), ("last", set(range(4, 9)))):
        _, _, end = trained(tmp_path / name, failing, which, on_save_error="continue")
        assert isinstance(end, SaveError), name


def test_what_could_not_be_logged_is_logged_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def log(path: Path, fail: set[int]) -> list[dict[str, Any]]:
        real, calls = storage.append, iter(range(1, 1000))

        def append(file: Path, text: str) -> None:
            if file.name == "metrics.jsonl" and next(calls) in fail:
                raise SaveError("full")
            real(file, text)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "append", append)
            run, _, _ = trained(path, lambda *_: None, set(), on_save_error="continue")
        return run.metrics()

    assert log(tmp_path / "b", {3, 4}) == log(tmp_path / "a", set())


def test_half_a_line_is_cut_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.jsonl"
    storage.append(file, '{"a": 1}\n')
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")

    class Half:
        def __init__(self, real: Any) -> None:
            self.real = real

        def __enter__(self) -> Half:
            return self

        def __exit__(self, *error: object) -> None:
            self.real.close()

        def tell(self) -> int:
            return int(self.real.tell())

        def write(self, data: bytes) -> None:
            self.real.write(data[:4])
            self.real.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *w, **m: Half(real(self, *w, **m)))
        with pytest.raises(SaveError, match="No space left"):
            storage.append(file, '{"b": 2}\n')
    storage.append(file, '{"c": 3}\n')
    assert file.read_text() == '{"a": 1}\n{"c": 3}\n'


OVER = """
import sys, torch, shutil
from pathlib import Path
from sandglass.runs.run import Run
run = Run(sys.argv[1])
first = run.read_checkpoint(11)                      # its tensors may be mapped from the file
tensors = {k: dict(v) for k, v in first.tensors.items()}
for _ in range(3):
    run.save_checkpoint(11, tensors, first.state, {})
    run.write_model(tensors["model"], "card", 11)
after = run.read_checkpoint(11).tensors
assert all(torch.equal(v, after[f][k]) for f, part in tensors.items() for k, v in part.items())
assert all(torch.isfinite(v.float()).all() for part in tensors.values() for v in part.values())
"""
CARELESS = """
import sys, torch
path = sys.argv[1] + "/x.pt"
torch.save({"x": torch.ones(3_000_000)}, path)
x = torch.load(path, mmap=True, weights_only=True)
torch.save(x, path)
sys.exit(0 if torch.equal(torch.load(path, weights_only=True)["x"], torch.ones(3_000_000)) else 1)
"""


def test_saving_over_what_was_loaded_keeps_it(run: Run, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OVER, str(run.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    control = subprocess.run([sys.executable, "-c", CARELESS, str(tmp_path)], capture_output=True, timeout=120)
    assert control.returncode != 0  # in place, the mapped pages go with the file


def test_a_kill_while_pruning_leaves_what_is_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = run.read_checkpoint(STEP)
    for step in (12, 13, 14):
        run.save_checkpoint(step, checkpoint.tensors, checkpoint.state, {})

    def killed(path: Path, **_: Any) -> None:
        next(path.iterdir()).unlink()
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr("sandglass.runs.run.shutil.rmtree", killed)
        with pytest.raises(SystemExit):
            run.prune(2, {STEP})
    assert STEP in run.steps() and run.steps()[-1] == 14
    for step in run.steps():
        run.read_checkpoint(step)
    with hold(run.path):
        assert leftovers(run.path / "checkpoints") == []
    run.prune(1, {STEP})
    assert run.steps() == [STEP, 14]


def test_the_best_is_the_first_of_equals_and_never_nan(tmp_path: Path) -> None:
    data = pictures()
    loop, _ = make_loop(fresh("ae", data, net="mlp", latent_dim=2), data, tmp_path / "run", epochs=1)
    for step, objective in enumerate([float("nan"), 2.0, 2.0, float("nan"), float("inf"), 1.0, 1.0], 1):
        loop.now.step = step
        loop.compare(objective)
    assert (loop.now.best, loop.now.best_step) == (1.0, 6)
    loop.now.best_step = None
    loop.now.best = float("inf")
    loop.compare(float("nan"))
    assert loop.now.best_step is None


@pytest.mark.parametrize("where", ["file", "under-file", "proc", "long", "nul"])
def test_an_unwritable_folder_is_reported_before_training(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    out = {
        "file": str(tmp_path / "file"), "under-file": str(tmp_path / "file" / "run"), "proc": "/proc/run",
        "long": str(tmp_path / ("x" * 300)), "nul": str(tmp_path / "a\0b"),
    }[where]  # fmt: skip
    if where == "proc" and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    monkeypatch.setattr("sandglass.engine.loop.Loop.fit", lambda self: pytest.fail("training began"))
    code = main(["train", "ae", "--data", "digits", "--epochs", "1", "--out", out])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sandglass:")]
    assert code == SaveError.exit_code and len(lines) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_told_before_training(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; /proc above stands for it")
    (tmp_path / "closed").mkdir(mode=0o555)
    assert main(["train", "ae", "--data", "digits", "--out", str(tmp_path / "closed" / "x")]) == SaveError.exit_code


def test_a_name_in_any_script_is_as_good_as_another(tmp_path: Path) -> None:
    out = tmp_path / "épreuve 実験 🙂 -x"
    words = ["--data", "digits", "--epochs", "1", "--no-report", "--out", str(out), "--net", "mlp", "--limit", "100"]
    assert main(["train", "ae", *words]) == 0
    assert main(["verify", str(out)]) == 0
    assert main(["train", "--resume", str(out), "--epochs", "2", "--no-report"]) == 0


def test_a_checkpoint_that_is_no_folder_is_damage(run: Run) -> None:
    shutil.rmtree(run.checkpoint_path(STEP))
    run.checkpoint_path(STEP).write_text("x")
    with pytest.raises(CheckpointError):
        run.read_checkpoint(STEP)
    assert torch.is_tensor(next(iter(run.load_model().state_dict().values())))
