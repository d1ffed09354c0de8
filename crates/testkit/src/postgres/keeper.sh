# Keeps one throw-away PostgreSQL for as long as somebody uses it.
#
# Run with the cluster's directory as working directory; $1 is the directory of the server programs, $2 how
# many seconds to wait for the next user once the last one has gone.
#
# A user is a process that holds the named pipe `users` open. The kernel closes it however the process ends,
# so the end of input means that nobody is left. A user sends lines `<command> <file>`; the exit status of the
# command is put into that file. No answer means that the keeper had already decided to stop.
set -u
bin=$1
linger=$2
directory=$PWD
sleeper=

# A file `primary` holds the connection string of the server that this one is to follow.
initialise() {
    if [ -f primary ]; then
        # The directory may hold links to some of the programs only.
        "$(dirname "$(readlink -f "$bin/initdb")")/pg_basebackup" -d "$(cat primary)" -D data -R -X stream -c fast
    else
        "$bin/initdb" -D data -U frontrow --pwfile=password -A scram-sha-256 -E UTF8 --locale=C -N
    fi && cat settings.conf >>data/postgresql.conf
} </dev/null >>log 2>&1

start() {
    "$bin/pg_ctl" -D data -l log -w -t 60 start
} </dev/null >>log 2>&1

stop() {
    "$bin/pg_ctl" -D data -m immediate -w -t 60 stop
} </dev/null >>log 2>&1

finish() {
    trap '' HUP INT TERM
    [ "$sleeper" ] && kill "$sleeper" 2>/dev/null
    stop
    cd / && rm -rf "$directory"
}

trap finish EXIT
trap 'exit 1' HUP INT TERM

mkfifo -m 600 users || exit 1
initialise && start
started=$?

came=yes
while [ "$came" ]; do
    came=
    # Counts as a user for a while, so that the next test binary of the same run finds the cluster running.
    sleep "$linger" >users &
    sleeper=$!
    while read -r command answer; do
        came=yes
        case $command in
        join) status=$started ;;
        start) start && status=0 || status=1 ;;
        stop) stop && status=0 || status=1 ;;
        quit) exit 0 ;;
        esac
        # Renamed into place, so that it is never read half written.
        echo "$status" >"$answer.new" && mv "$answer.new" "$answer"
    done <users
done
