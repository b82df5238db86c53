"""The restart rule, run against fakes of the cloud: 75 is run again for ever, an error only so often, 2 never."""

import shlex
import shutil

import pytest

from .conftest import AWKWARD

TPU = ["--zone=z", "--type=v6e-16", "--bucket=b", "--spot", "--poll=0", "--backoff=0"]
STAGE = ["sft", "--workdir=/mnt/w2sr/a b", AWKWARD]

# A project with one other TPU. `runs` holds how each run ends: an exit code, or "taken" (the slice is preempted and the
# connections break); its last line stays. `made` is the state in which a new queued resource begins.
GCLOUD = """
cd {state}
case "$*" in
  *"queued-resources list"*) printf 'other\\tFAILED\\n'; [[ ! -e tpu ]] || printf 'w2sr\\t%s\\n' "$(cat tpu)" ;;
  *"queued-resources create"*) [[ ! -e tpu ]] || exit 44; cp made tpu ;;
  *"queued-resources delete"*) rm tpu ;;
  *" ssh "*"exec launch/host.sh"*)
    [[ $(cat tpu) == ACTIVE ]] || exit 45
    ending=$(head -n 1 runs)
    [[ $(wc -l <runs) == 1 ]] || sed -i 1d runs
    if [[ $ending == taken ]]; then echo SUSPENDED >tpu; exit 255; fi
    exit "$ending" ;;
esac
"""


@pytest.fixture
def pod(host, tmp_path):
    """Runs tpu_pod.sh on a project where the runs end like this; returns its exit code and what it did."""
    (tmp_path / "state").mkdir()
    host.fake("gcloud", GCLOUD.format(state=shlex.quote(str(tmp_path / "state"))))

    def run(*endings, made="ACTIVE", flags=()):
        (tmp_path / "state/runs").write_text("".join(f"{ending}\n" for ending in endings))
        (tmp_path / "state/made").write_text(made)
        done = host.run("tpu_pod.sh", *TPU, *flags, *STAGE)
        runs = [call for call in host.calls("ssh") if "exec launch/host.sh" in call[-1]]
        return done, {"create": len(host.calls("create")), "delete": len(host.calls("delete")), "run": len(runs)}

    return run


def test_a_run_that_succeeds_is_run_once(pod, host):
    done, did = pod(0)
    assert done.returncode == 0
    assert did == {"create": 1, "delete": 0, "run": 1}
    assert "delete" in done.stderr  # what the user still has to do
    assert "tpu_pod.sh' delete --name=w2sr --zone=z" in done.stderr
    [start] = [call for call in host.calls("ssh") if "exec launch/host.sh" in call[-1]]
    assert shlex.split(start[-1])[-3:] == ["--distributed", *STAGE[1:]]
    [sent] = host.calls("scp")
    assert sent[5].endswith(".tar.gz")


def test_the_commands_that_are_left_to_the_user_name_the_project(pod):
    done, _ = pod(0, made="FAILED", flags=["--project=p", "--max-failures=0"])
    assert "queued-resources describe w2sr --zone=z --project=p" in done.stderr
    done, _ = pod(0, flags=["--project=p"])
    assert "tpu_pod.sh' delete --name=w2sr --zone=z --project=p" in done.stderr


def test_exit_code_75_runs_the_same_command_again_on_the_same_tpu(pod):
    done, did = pod(75, 75, 75, 75, 75, 0)
    assert done.returncode == 0
    assert did == {"create": 1, "delete": 0, "run": 6}


def test_a_slice_that_is_taken_away_is_made_anew_and_the_command_runs_again(pod):
    done, did = pod("taken", "taken", "taken", "taken", "taken", 0)
    assert done.returncode == 0
    assert did == {"create": 6, "delete": 5, "run": 6}


def test_a_run_that_fails_for_ever_is_given_up(pod):
    done, did = pod(1, flags=["--max-failures=2"])
    assert done.returncode == 1
    assert did == {"create": 1, "delete": 0, "run": 3}
    assert "gave up after 3 tries" in done.stderr


def test_a_wrong_flag_of_the_stage_is_not_tried_again(pod):
    done, did = pod(2)
    assert done.returncode == 2
    assert did["run"] == 1


def test_a_tpu_that_cannot_be_made_is_given_up_with_where_to_look(pod):
    done, did = pod(0, made="FAILED", flags=["--max-failures=1"])
    assert done.returncode == 1
    assert did == {"create": 2, "delete": 2, "run": 0}
    assert "queued-resources describe w2sr --zone=z" in done.stderr


def test_an_existing_tpu_is_used(pod, host, tmp_path):
    (tmp_path / "state/tpu").write_text("ACTIVE")
    done, did = pod(0)
    assert done.returncode == 0
    assert did == {"create": 0, "delete": 0, "run": 1}


def test_the_pause_doubles_with_each_error(pod, host):
    host.fake("sleep")
    done, _ = pod(3, flags=["--backoff=7", "--max-failures=3"])
    assert done.returncode == 3
    assert [call[1] for call in host.calls("sleep") if call[1] != "0"] == ["7", "14", "28"]


@pytest.fixture
def job(host, tmp_path):
    """Runs slurm.sh as Slurm does: a copy of it elsewhere, in a job, with the repository as the submit directory."""
    copy = tmp_path / "spool"
    copy.mkdir()
    shutil.copy(host.root / "launch/slurm.sh", copy / "slurm_script")
    host.fake("scontrol")

    def run(*codes, flags=(), state="RUNNING"):
        host.fake("squeue", f"echo {state}")
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        host.fake(
            "srun",
            f"cd {shlex.quote(str(tmp_path))}; code=$(head -n 1 codes); "
            '[[ $(wc -l <codes) == 1 ]] || sed -i 1d codes; exit "$code"',
        )
        (host.root / "launch/inside.sh").symlink_to(copy / "slurm_script")
        slurm = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(host.root), "SLURM_JOB_NUM_NODES": "2"}
        return host.run("inside.sh", "--extras=", "--backoff=0", *flags, *STAGE[:1], "--workdir=/x y", AWKWARD, **slurm)

    return run


def test_a_slurm_job_that_succeeds_ends(job, host):
    assert job(0).returncode == 0
    [step] = host.calls("srun")
    assert step[-4:] == ["sft", "--distributed", "--workdir=/x y", AWKWARD]
    assert not host.calls("scontrol")


def test_exit_code_75_puts_the_slurm_job_back_into_the_queue(job, host):
    assert job(75).returncode == 75
    assert len(host.calls("srun")) == 1
    assert host.calls("squeue") == [["squeue", "--noheader", "--format=%T", "--jobs", "17"]]
    assert host.calls("scontrol") == [["scontrol", "requeue", "17"]]


def test_a_slurm_job_that_its_owner_cancels_stays_cancelled(job, host):
    done = job(75, state="COMPLETING")
    assert done.returncode == 75
    assert "COMPLETING" in done.stderr
    assert not host.calls("scontrol")


def test_a_slurm_job_that_fails_for_ever_is_given_up(job, host):
    assert job(1, flags=["--max-failures=2"]).returncode == 1
    assert len(host.calls("srun")) == 3
    assert not host.calls("scontrol")


def test_a_slurm_job_survives_one_error(job, host):
    assert job(1, 0).returncode == 0
    assert len(host.calls("srun")) == 2


def test_slurm_says_where_to_submit_from(host, tmp_path):
    message = host.fails("slurm.sh", *STAGE, SLURM_JOB_ID="17", SLURM_SUBMIT_DIR=str(tmp_path))
    assert "submit from the repository's root" in message


def test_sbatch_gets_the_command_line(host):
    host.fake("sbatch")
    assert host.run("slurm.sh", "--nodes=3", "sft", "--workdir=/x y", AWKWARD).returncode == 0
    [call] = host.calls("sbatch")
    assert call[-5:] == ["launch/slurm.sh", "--nodes=3", "sft", "--workdir=/x y", AWKWARD]
