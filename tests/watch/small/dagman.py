"""A very small DAGMan with its monitord: ``dagman.py RUN CLUSTER``, started by ``pegasus_run.py``.

Runs the jobs of ``work.json`` one after the other and writes the logs that the real programs would
write. A job succeeds when its submit file asks for the memory that it needs; otherwise it fails, or is
held in the queue until somebody raises its request there and releases it.
"""

import json
import os
import re
import sys
import time

PAUSE = 0.06


class Workflow:
    def __init__(self, run, cluster):
        self.run, self.cluster = run, cluster
        with open(os.path.join(run, "work.json")) as stream:
            self.work = json.load(stream)
        self.queue = self.work["queue"]
        self.seq = 0

    def log(self, name, text):
        with open(os.path.join(self.run, name), "a") as stream:
            stream.write(text)

    def state(self, job, *states):
        for state in states:
            word, _, value = state.partition("=")
            self.log("jobstate.log", f"{int(time.time())} {job} {word} {value or self.id} condorpool - {self.seq}\n")

    def event(self, number, heading, *body):
        rows = "".join(f"\t{row}\n" for row in body)
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        self.log("demo-0.log", f"{number:03d} ({self.id.split('.')[0]}.000.000) {when} {heading}\n{rows}...\n")

    def done(self):
        with open(os.path.join(self.run, "jobstate.log")) as stream:
            return {row.split()[1] for row in stream if " POST_SCRIPT_SUCCESS " in row}

    def asks_for(self, job):
        with open(os.path.join(self.run, "00", "00", f"{job}.sub")) as stream:
            return int(re.search(r"request_memory = (\d+)", stream.read())[1])

    def one(self, job, facts):
        self.seq += 1
        self.id = f"{next_cluster(self.queue)}.0"
        self.event(0, "Job submitted from host: <127.0.0.1>", f"DAG Node: {job}")
        self.state(job, "SUBMIT", "EXECUTE")
        time.sleep(PAUSE)
        good = self.asks_for(job) >= facts["needs"]
        if facts["held"] and not good:
            self.hold(job, facts)
            good = True
        place = os.path.join(self.run, "00", "00")
        number = len([name for name in os.listdir(place) if name.startswith(f"{job}.out.")])
        with open(os.path.join(place, f"{job}.out.{number:03d}"), "w") as stream:
            stream.write(facts["good" if good else "bad"].replace("@CONDOR@", self.id))
        if good:
            self.state(job, "JOB_TERMINATED", "JOB_SUCCESS=0", "POST_SCRIPT_STARTED", "POST_SCRIPT_SUCCESS=0")
        else:
            self.state(job, "JOB_TERMINATED", "JOB_FAILURE=1", "POST_SCRIPT_STARTED", "POST_SCRIPT_FAILURE=1")
        return good

    def hold(self, job, facts):
        """Held again and again, until its request in the queue is large enough and it is released."""
        ad = {
            "ClusterId": int(self.id.split(".")[0]), "ProcId": 0, "JobUniverse": 5, "DAGNodeName": job, "Iwd": self.run,
            "RequestMemory": self.asks_for(job), "DAGManJobId": self.cluster, **self.work["ad"],
        }  # fmt: skip
        reason = "Error from slot1@node1: memory usage exceeded request_memory"
        while True:
            ad |= {
                "JobStatus": 5,
                "HoldReason": reason,
                "HoldReasonCode": 21,
                "HoldReasonSubCode": 102,
                "EnteredCurrentStatus": int(time.time()),
            }
            put(self.queue, ad)
            self.event(12, "Job was held.", reason, "Code 21 Subcode 102")
            self.state(job, "JOB_HELD", "JOB_HELD_REASON")
            while ad["JobStatus"] == 5:
                time.sleep(PAUSE / 2)
                ad = get(self.queue, ad["ClusterId"])
            self.log("commands.log", "".join(f"{row}\n" for row in ad.pop("done")))
            self.event(13, "Job was released.")
            self.state(job, "JOB_RELEASED", "EXECUTE")
            if ad["RequestMemory"] >= facts["needs"]:
                time.sleep(PAUSE)
                os.unlink(os.path.join(self.queue, f"{ad['ClusterId']}.json"))
                return
            self.log("commands.log", "held again\n")

    def whole(self):
        self.log("demo-0.dag.dagman.out", f"{stamp()} ** condor_scheduniv_exec.{self.cluster}.0 (CONDOR_DAGMAN) STARTING UP\n")
        with open(os.path.join(self.run, "jobstate.log"), "a+") as stream:
            stream.seek(0)
            self.seq = max([int(row.split()[-1]) for row in stream if row.split()[-1].isdigit()], default=0)
        self.log("jobstate.log", f"{int(time.time())} INTERNAL *** DAGMAN_STARTED {self.cluster}.0 ***\n")
        failed = []
        for stage in sorted({facts["stage"] for facts in self.work["jobs"].values()}):
            jobs = {job: facts for job, facts in self.work["jobs"].items() if facts["stage"] == stage}
            failed += [job for job, facts in jobs.items() if job not in self.done() and not self.one(job, facts)]
            if failed:
                break
        status = 1 if failed else 0
        if failed:
            self.rescue(failed)
        self.log("jobstate.log", f"{int(time.time())} INTERNAL *** DAGMAN_FINISHED {status} ***\n")
        ended = f"**** condor_scheduniv_exec.{self.cluster}.0 (condor_DAGMAN) pid 5 EXITING WITH STATUS {status}"
        self.log("demo-0.dag.dagman.out", f"{stamp()} {ended}\n")

    def rescue(self, failed):
        done = sorted(self.done())
        number = len([name for name in os.listdir(self.run) if ".rescue" in name]) + 1
        head = f"# Rescue DAG file, created after running\n#   the demo-0.dag DAG file\n#   {','.join(failed)},<ENDLIST>\n\n"
        self.log(f"demo-0.dag.rescue{number:03d}", head + "".join(f"DONE {job}\n" for job in done))


def stamp():
    return time.strftime("%m/%d/%y %H:%M:%S")


def put(queue, ad):
    """Into the queue, whole or not at all."""
    place = os.path.join(queue, f"{ad['ClusterId']}.json")
    with open(f"{place}.{os.getpid()}", "w") as stream:
        json.dump(ad, stream)
    os.rename(stream.name, place)


def get(queue, cluster):
    with open(os.path.join(queue, f"{cluster}.json")) as stream:
        return json.load(stream)


def next_cluster(queue):
    """A number that nobody has: a folder can be made once."""
    numbers = os.path.join(queue, "numbers")
    number = 100 + len(os.listdir(numbers))
    while True:
        try:
            os.mkdir(os.path.join(numbers, str(number)))
            return number
        except FileExistsError:
            number += 1


def main():
    run, cluster = sys.argv[1], int(sys.argv[2])
    workflow = Workflow(run, cluster)
    lock = os.path.join(run, "demo-0.dag.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
        workflow.whole()
        os.unlink(lock)
    except FileExistsError:
        workflow.log("commands.log", "another DAGMan is at work\n")
    finally:
        os.unlink(os.path.join(workflow.queue, f"{cluster}.json"))


if __name__ == "__main__":
    main()
