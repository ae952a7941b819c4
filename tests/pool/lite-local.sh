#!/bin/sh
# Runs a job of the submit host in a folder of its own, with the files that it names. For tests alone.
set -e
cd "$_CONDOR_SCRATCH_DIR"
for name in $(echo "$_PEGASUS_TRANSFER_INPUT_FILES" | tr ',' ' '); do
    cp "$name" .
done
exec "$@"
