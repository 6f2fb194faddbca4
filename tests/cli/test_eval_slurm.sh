#!/usr/bin/env bash
# eval/slurm/*.sbatch on a cluster of one node that this test brings up for itself, in a folder and on ports of its own.
# Where that cannot be done (Slurm is not installed, the test does not run as root) it ends with 77: skipped.
. "$SOURCE_DIR/tests/cli/common.sh"
skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ "${SANITIZE:-}" = ON ] && skip "daemons and jobs are tested with the release build"
for program in slurmctld slurmd sbatch squeue scontrol; do
    PATH=$PATH:/usr/sbin:/sbin command -v $program >/dev/null || skip "$program is not installed (Debian: slurm-wlm)"
done
[ "$(id -u)" = 0 ] || skip "only root can bring up a cluster"
PATH=$PATH:/usr/sbin:/sbin
demo=$SOURCE_DIR/models/demo/heldout
cd "$work" || exit 1
export CANDID SLURM_CONF=$work/slurm.conf

# ---- a cluster of one node ----
free_port() { # no answer on the port: it is free
    local port
    for port in $(shuf -i 20000-30000 -n 50); do
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
mkdir state spool logs
cat >slurm.conf <<CONF
ClusterName=candid-test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/logs/slurmctld
SlurmdLogFile=$work/logs/slurmd
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=1
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
daemons=()
tear_down() {
    scancel --state=RUNNING 2>/dev/null
    [ ${#daemons[@]} -eq 0 ] || { kill "${daemons[@]}"; wait "${daemons[@]}"; } 2>/dev/null
    rm -rf "$work"
}
trap tear_down EXIT
slurmctld -D -f slurm.conf >logs/ctld.out 2>&1 &
daemons+=($!)
slurmd -D -f slurm.conf -N "$(hostname -s)" >logs/d.out 2>&1 &
daemons+=($!)
for ((i = 0; i < 100; i++)); do
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && break
    sleep 0.1
done
[ "$(sinfo -h -o %T 2>/dev/null)" = idle ] || skip "the cluster did not come up: $(tail -qn 2 logs/* | tr '\n' ' ')"
echo "$(sinfo -V) on $(hostname -s)"

finished() { # finished JOB: waits until none of its tasks is left
    local i
    for ((i = 0; i < 250; i++)); do
        [ -n "$(squeue -h -j "$1" 2>/dev/null)" ] || return 0
        sleep 0.1
    done
    fail "job $1 has not ended: $(squeue -j "$1"; cat ./*.log)"
}

# ---- three tasks, one of them requeued while it runs, and the merge that waits for them: as one run ----
options=(--images "$demo/images" --questions "$demo/questions_random.jsonl" --questions "$demo/questions_popular.jsonl"
    --limit 90 --threads 1)
run 0 "$CANDID" eval pope "${options[@]}" --out whole
job=$(sbatch --parsable --array=1-3 "$SOURCE_DIR/eval/slurm/pope.sbatch" "$work/parts" "${options[@]}") || fail "sbatch"
merge=$(sbatch --parsable --dependency="afterany:$job" "$SOURCE_DIR/eval/slurm/merge.sbatch" "$work/parts") || fail "sbatch"
for ((i = 0; i < 500; i++)); do
    [ -s parts/greedy.shard-2-of-3.jsonl ] && break
    sleep 0.02
done
run 0 scontrol requeue "${job}_2"
done_before=$(wc -l <parts/greedy.shard-2-of-3.jsonl)
scontrol update "JobId=${job}_2" StartTime=now 2>/dev/null
finished "$job"
finished "$merge"
[ "$(grep -c 'candid: pope greedy' "candid-${job}_2.log")" = 2 ] || fail "the second task was not started again"
[ "$(grep -c 'candid: pope greedy' "candid-${job}_1.log")" = 1 ] || fail "the first task was started again"
all=$(wc -l <whole/greedy.jsonl)
[ "$done_before" -lt $((all / 3)) ] || fail "the second task had ended before it was requeued"
[ "$(wc -l <parts/greedy.jsonl)" = "$all" ] || fail "$(wc -l <parts/greedy.jsonl) of $all questions: $(cat candid-merge-*.log)"
fingerprint() { grep -o '"fingerprint":[^,}]*' "$1"; }
[ "$(fingerprint whole/greedy.json)" = "$(fingerprint parts/greedy.json)" ] || fail "other logits than those of one run"
diff <(sed -n '/"scores":/,$p' whole/greedy.json) <(sed -n '/"scores":/,$p' parts/greedy.json) >/dev/null || fail "other scores"
grep -q '<html' parts/report.html || fail "no report"
echo "requeued after $done_before questions"

# ---- one task of three again; CHAIR; what is missing is told of ----
rm parts/greedy.shard-3-of-3.*
job=$(SHARDS=3 sbatch --parsable --array=3 "$SOURCE_DIR/eval/slurm/pope.sbatch" "$work/parts" "${options[@]}")
finished "$job"
run 0 "$CANDID" eval merge parts
job=$(BENCHMARK=chair sbatch --parsable --array=1-2 "$SOURCE_DIR/eval/slurm/pope.sbatch" "$work/chair" \
    --images "$demo/images" --truth "$demo/instances.json" --mode pattern --limit 4 --threads 1)
finished "$job"
rm chair/greedy.shard-1-of-2.json
run 0 sbatch --wait "$SOURCE_DIR/eval/slurm/merge.sbatch" "$work/parts"
run 1 sbatch --wait "$SOURCE_DIR/eval/slurm/merge.sbatch" "$work/chair"
grep -q "shard 1 of 2 is missing" candid-merge-*.log || fail "the log does not tell of the missing part"
