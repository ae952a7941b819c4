"""A very small ``pegasus-run RUN``: says in ``commands.log`` that it was called, and starts ``dagman.py``."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import dagman

if __name__ == "__main__":
    run = os.path.realpath(sys.argv[1])
    workflow = dagman.Workflow(run, 0)
    workflow.log("commands.log", "run\n")
    time.sleep(workflow.work["slow_s"])
    if os.path.exists(os.path.join(run, "monitord.pid")):
        sys.exit("Error: It looks like the workflow is already running!")
    cluster = dagman.next_cluster(workflow.queue)
    dagman.put(
        workflow.queue,
        {
            "ClusterId": cluster,
            "ProcId": 0,
            "JobUniverse": 7,
            "JobStatus": 2,
            "Iwd": run,
            "Cmd": "/x/pegasus-dagman",
            **workflow.work["ad"],
        },
    )
    program = [sys.executable, "-SE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "dagman.py"), run, str(cluster)]
    subprocess.Popen(program, start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
