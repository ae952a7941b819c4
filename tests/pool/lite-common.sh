# The functions that a planned wrapper calls around its task. A stand-in for tests alone: it prints the
# stages and closing lines by which a PegasusLite log is read, and keeps the exit codes' meaning.

say() { echo "$(date +'%F %T'): $*" 1>&2; }

pegasus_lite_init() {
    began=$(date +%s)
    job_ec=0
    step=
    pegasus_lite_start_dir=$PWD
    export PEGASUS_MULTIPART_DIR=$PWD/.pegasus.mulitpart.d
    mkdir -p "$PEGASUS_MULTIPART_DIR"
    say "Job launched in directory $PWD"
    say "PegasusLite: version $pegasus_lite_version_major.$pegasus_lite_version_minor.$pegasus_lite_version_patch"
    say "Executing on host $(hostname -s 2>/dev/null || uname -n) IP=127.0.0.1"
}

pegasus_lite_setup_work_dir() {
    if [ -n "$pegasus_lite_work_dir" ]; then
        say "Not creating a new work directory as it is already set to $pegasus_lite_work_dir"
        return 0
    fi
    here=${_CONDOR_SCRATCH_DIR:-$PWD}
    say "Checking $here for potential use as work space... "
    pegasus_lite_work_dir=$(mktemp -d "$here/pegasus.XXXXXXXXX")
    made=$pegasus_lite_work_dir
    say "  Workdir is $pegasus_lite_work_dir - 78G available"
    say "Changing cwd to $pegasus_lite_work_dir"
    cd "$pegasus_lite_work_dir" || return 1
    for kind in lof meta; do
        if ls "$pegasus_lite_start_dir"/*.$kind >/dev/null 2>&1; then
            say "Copying $kind files from $pegasus_lite_start_dir to $pegasus_lite_work_dir"
            cp "$pegasus_lite_start_dir"/*.$kind .
        fi
    done
}

pegasus_lite_worker_package() {
    say "Checking for untar worker package in $pegasus_lite_start_dir"
    say "Using existing Pegasus binaries in $PEGASUS_HOME/bin"
    export PATH=$PEGASUS_HOME/bin:$PATH
}

pegasus_lite_section_start() { step=$1; }
pegasus_lite_section_end() { step=; }

close_down() {
    for part in "$PEGASUS_MULTIPART_DIR"/*; do
        [ -f "$part" ] && printf '\n---------------pegasus-multipart\n' && cat "$part"
    done
    if [ -n "$made" ]; then
        cd "$pegasus_lite_start_dir" && rm -rf "$made" && say "$made cleaned up"
    fi
    rm -rf "$PEGASUS_MULTIPART_DIR"
    echo "PegasusLite: runtime $(($(date +%s) - began))" 1>&2
}

pegasus_lite_final_exit() {
    [ "$job_ec" = 0 ] || say "User task failed with exitcode $job_ec"
    close_down
    echo "PegasusLite: exitcode $job_ec" 1>&2
    exit "$job_ec"
}

pegasus_lite_unexpected_exit() {
    ended=$?
    trap - EXIT
    [ "$job_ec" = 0 ] || say "User task failed with exitcode $job_ec"
    say "Last command exited with $ended"
    close_down
    echo "PegasusLite: exitcode 71, tool originally exited with exitcode $ended" 1>&2
    exit 71
}

stopped() {
    say "Caught $1 signal! Aborting..."
    exit "$2"
}
pegasus_lite_signal_int() { stopped INT 130; }
pegasus_lite_signal_term() { stopped TERM 143; }
