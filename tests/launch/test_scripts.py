"""The scripts of launch/: arguments, exit codes and signals pass through, and nobody else is ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distributed_dd.cli import VERBS
from tests.conftest import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = ("experts", "distill", "run", "tune")
OWN_RAY = LAUNCH / "clusters" / "own_ray.sh"
SBATCH = LAUNCH / "slurm" / "distill.sbatch"
IN_PROCESS = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]


def call(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_scripts_are_one_text():
    """`ray submit` copies one alone, so they share nothing; a change belongs in all."""
    assert len({(LAUNCH / f"{verb}.py").read_text() for verb in SCRIPTS}) == 1


@pytest.mark.parametrize("verb", [verb for verb in SCRIPTS if verb in VERBS])
def test_the_verb_is_the_name_of_the_file(verb, tmp_path):
    done = call([sys.executable, LAUNCH / f"{verb}.py", "--help"], cwd=tmp_path)
    assert done.returncode == 0 and f"usage: distributed-dd {verb} " in done.stdout


def test_exit_codes_pass_through(tiny_yaml, tmp_path):
    script = [sys.executable, LAUNCH / "run.py"]
    typo = call([*script, tiny_yaml, "sed=1"])
    assert typo.returncode == 2 and "did you mean 'seed'" in typo.stderr
    missing = call([*script, tmp_path / "none.yaml"])
    assert missing.returncode == 3


@pytest.fixture
def head(tmp_path):
    """A home as the cluster files leave it on the head; gives a call of a script there."""
    home = tmp_path / "home"
    (home / "distributed-dd").mkdir(parents=True)
    (home / "distributed-dd" / "configs").symlink_to(ROOT / "configs")

    def there(verb, *arguments):
        script = shutil.copy(LAUNCH / f"{verb}.py", home)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return call([sys.executable, script, *arguments], env=environment | {"HOME": str(home)}, cwd=home)

    return there


def test_on_the_head_configurations_are_those_of_the_checkout(head):
    """The script arrives alone, in the home: configs/.. must be found all the same."""
    done = head("run", "configs/digits/datm_ipc10.yaml", "sed=1")
    assert done.returncode == 2 and "did you mean 'seed'" in done.stderr


def test_on_the_head_the_cluster_is_joined(head, tmp_path):
    """A Ray started beside it would leave the workers idle. Here nobody listens at the address."""
    (tmp_path / "home" / "distributed-dd" / "ray_address").write_text("127.0.0.1:9\n")
    output = f"output={tmp_path / 'runs'}"
    done = head("experts", "configs/digits/datm_ipc10.yaml", output, "tracker=none")
    assert done.returncode == 3 and "Ray cluster 127.0.0.1:9" in done.stderr


def test_sigterm_ends_a_script_as_it_ends_the_command(tiny_yaml, tmp_path):
    """Catches a script that calls main() and leaves out what is set before it."""
    command = [sys.executable, LAUNCH / "distill.py", tiny_yaml, "num_outer_steps=100000", *IN_PROCESS]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        until(lambda: list((tmp_path / "runs").glob("digits-*/checkpoint/latest.json")))
        driver.send_signal(signal.SIGTERM)
        _, error = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130 and "the same command goes on" in error, error


FAKE_RAY = """#!/bin/bash
trap 'kill $!; exit' TERM
sleep 300 &
echo "Ray runtime started. $*"
wait
"""


@pytest.fixture
def own_ray(tmp_path):
    """own_ray.sh under a name that is free; gives a call of it, and the command that it starts."""
    name = f"test-{os.getpid()}"
    program = tmp_path / "ray"
    program.write_text(FAKE_RAY)
    program.chmod(0o755)
    yield lambda what, *command: call(["bash", OWN_RAY, what, name, *command]), str(program)
    call(["bash", OWN_RAY, "stop", name])
    for path in Path(f"/tmp/distributed_dd-{psutil.Process().username()}").glob(f"{name}.*"):
        path.unlink()


def alive(program):
    """Processes that run this program."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if program in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_own_ray_ends_what_it_started_and_nothing_else(own_ray):
    """`ray stop` would end the bystander, which has the same name."""
    there, program = own_ray
    bystander = subprocess.Popen(["bash", program], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        assert there("start", program, "start", "--head").returncode == 0
        (mine,) = [p for p in alive(program) if p.pid != bystander.pid]
        assert mine.cmdline()[-3:] == ["start", "--head", "--block"]
        family = [mine, *mine.children()]
        assert len(family) == 2
        assert there("stop").returncode == 0
        assert not psutil.wait_procs(family, timeout=10)[1], "its children too"
        assert [p.pid for p in alive(program)] == [bystander.pid]
        assert there("stop").returncode == 0, "stopped twice is stopped"
    finally:
        os.killpg(bystander.pid, signal.SIGKILL)
        bystander.wait()


def test_own_ray_started_again_takes_the_place_of_the_first(own_ray):
    """`ray up` on a running cluster starts again: two at one port would quarrel."""
    there, program = own_ray
    assert there("start", program).returncode == 0
    (first,) = alive(program)
    assert there("start", program).returncode == 0
    (second,) = alive(program)
    assert first.pid != second.pid


def test_own_ray_says_why_it_did_not_start(own_ray):
    there, _ = own_ray
    done = there("start", "bash", "-c", "echo port taken; exit 1")
    assert done.returncode == 1 and "port taken" in done.stderr


FAKES = {
    "srun": '#!/bin/bash\nshift\nexec "$@"\n',
    "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo node1 || echo "$@" >> "$SAID"\n',
    "ray": """#!/bin/bash
echo "ray $*" >> "$SAID"
while [ "$1" != -- ]; do shift; done
shift
"$@"
""",
    "distributed-dd": """#!/bin/bash
trap 'kill $!; exit 130' TERM
sleep ${LASTS:-0} &
echo "$RAY_AUTH_MODE $RAY_ADDRESS $OMP_NUM_THREADS: $*" >> "$SAID"
wait $!
exit ${CODE:-0}
""",
}


@pytest.fixture
def slurm(tmp_path):
    """The batch script among stand-ins for Slurm, Ray and the command; gives its start, and what was said."""
    (tmp_path / "bin").mkdir()
    for name, text in FAKES.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    said, token = tmp_path / "said", tmp_path / "token"
    said.touch()
    token.write_text("secret")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SAID": str(said),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "3",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }

    def start(*arguments, **more):
        return subprocess.Popen(["bash", SBATCH, *arguments], env=environment | more, stderr=subprocess.PIPE, text=True)

    return start, said


def test_sbatch_parses():
    assert call(["bash", "-n", SBATCH]).returncode == 0


def test_sbatch_runs_the_verb_on_all_nodes_and_passes_its_exit_code(slurm):
    start, said = slurm
    job = start("run", "a file.yaml", "seed=1", CODE="4")
    job.communicate(timeout=120)
    assert job.returncode == 4, "a failed run must not look done"
    ray, driver = said.read_text().splitlines()
    assert ray.startswith("ray symmetric-run --address node1:23456 --min-nodes 2 --num-cpus 3 ")
    assert driver == "token node1:23456 3: run a file.yaml seed=1"


@pytest.mark.parametrize(("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_sbatch_ends_the_driver_gently_and_requeues_at_the_time_limit_only(slurm, sent, requeued):
    """Catches a driver that is killed, one that never comes back, and one that scancel cannot stop."""
    start, said = slurm
    job = start("distill", "file.yaml", LASTS="60")
    until(lambda: "distill" in said.read_text().partition("\n")[2])
    job.send_signal(sent)
    job.communicate(timeout=120)
    assert ("requeue 123456" in said.read_text().splitlines()) == requeued
    assert job.returncode == (0 if requeued else 130)


def test_sbatch_passes_the_exit_code_of_a_driver_that_ends_at_once(slurm, tmp_path):
    """Catches the code of the signal in its place, where the driver is gone before the script looks again."""
    start, said = slurm
    (tmp_path / "slow").write_text('kill() { builtin kill "$@" && { [ "$1" != -TERM ] || sleep 1; }; }\n')
    job = start("distill", "file.yaml", LASTS="60", BASH_ENV=str(tmp_path / "slow"))
    until(lambda: "distill" in said.read_text().partition("\n")[2])
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=120)
    assert job.returncode == 130


def test_sbatch_signals_itself_before_the_time_limit():
    """Without B: the signal would go to `ray symmetric-run`, which dies of it."""
    assert "\n#SBATCH --signal=B:USR1@300\n" in SBATCH.read_text()


def test_sbatch_refuses_to_run_open_or_without_a_verb(slurm, tmp_path):
    start, said = slurm
    job = start("run", "file.yaml", RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert "get-auth-token" in job.communicate(timeout=120)[1] and job.returncode == 2
    job = start()
    assert "usage" in job.communicate(timeout=120)[1] and job.returncode == 2
    assert not said.read_text()
