#!/bin/bash
# Completion in bash: sourced, asked as bash asks, its answers compared with what the program takes.
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
export LC_ALL=C
PATH=$BUILD:$PATH
cd "$TMP" || exit 1
. "$root/client/completion/azoth.bash"
compopt() { :; } # it may only be called by bash's own completion
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'

one_line() { paste -sd' '; }

# completes WORD...: what bash would offer for the last one, sorted, on one line. Words are cut as bash cuts them.
completes() {
    COMP_WORDS=() COMPREPLY=()
    local w
    for w; do
        [ -n "$w" ] || COMP_WORDS+=("")
        while [ -n "$w" ]; do
            case $w in
            [=:]*) COMP_WORDS+=("${w:0:1}"); w=${w:1} ;;
            *) COMP_WORDS+=("${w%%[=:]*}"); w=${w#"${w%%[=:]*}"} ;;
            esac
        done
    done
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "$(complete -p "$1" | sed 's/.*-F \([^ ]*\) .*/\1/')" "$1"
    printf '%s\n' "${COMPREPLY[@]}" | sort | one_line
}

mkdir -p db/projections db/run other/projections
touch db/projections/{accounts,mails}.sql db/projections/accounts.db db/projections/notes.txt
touch other/projections/others.sql handlers.so one.sql
mkdir sub && touch sub/two.sql
commands=$(azoth --help | awk '/^  [a-z]/ {print $1}' | sort | one_line)

check "there are commands" test "$(wc -w <<<"$commands")" -gt 15
says "every command is offered" "$commands" "$(completes azoth '')"
says "also to help" "$commands" "$(completes azoth help '')"
says "those that begin so" "scan status" "$(completes azoth s | tr ' ' '\n' | grep -xE 'scan|status' | one_line)"
says "behind --dir they still are" "pause projection" "$(completes azoth --dir db p | tr ' ' '\n' | grep -xE 'pause|projection' | one_line)"
says "flags of the program itself" "--dir --help --version" "$(completes azoth -)"

# What a command's flags are is said by its usage and the lists of its help: each is offered.
for c in $commands; do
    azoth "$c" --help | sed -n '1p; /^  *--/p' | grep -oE -- '--[a-z][a-z-]*' | sort -u >said
    completes azoth "$c" -- | tr ' ' '\n' >offered
    comm -23 said offered | sed "s/^/$c /"
    grep -vxE -- '--[a-z][a-z-]*' offered
done >missing
says "every flag of every command is offered, and nothing that is none" "" "$(cat missing)"
says "flags that begin so" "--max-events --max-seconds" "$(completes azoth lag --m)"
says "settings are flags of azoth run" "--writer-batch-bytes --writer-batch-transactions" "$(completes azoth run --writer-batch)"
says "and of the services, beside their own" "--accept-changed" "$(completes azoth-projector --ac)"
says "as the writer" "--writer-sync" "$(completes azoth-writer --writer-s)"
says "a flag that a sentence names is not taken for one of the command's" "" "$(completes azoth config --w)"

says "projection has its own commands" "check generations history migrate new plan prune rebuild rollback try" \
    "$(completes azoth projection '')"
says "dlq, too" "drop export list retry retry-all show" "$(completes azoth dlq '')"
says "tx knows outcome" "outcome" "$(completes azoth tx o)"

says "projections' names come from --dir" "accounts mails" "$(completes azoth --dir db query '')"
says "written with =, too" "accounts mails" "$(completes azoth lag --dir=db '')"
says "and from wherever it stands" "others" "$(completes azoth lag --dir other '')"
export AZOTH_DIR=$TMP/db
says "or from the environment" "accounts" "$(completes azoth lag a)"
says "several may be named" "mails" "$(completes azoth lag accounts m)"
says "behind a command of projection" "accounts mails" "$(completes azoth projection rebuild '')"
says "but one only" "" "$(completes azoth projection rebuild accounts '' | one_line)"
says "behind a command of dlq" "mails" "$(completes azoth dlq retry-all m)"
says "to verify --projection" "accounts mails" "$(completes azoth verify --projection '')"
says "to a projector" "accounts mails" "$(completes azoth-projector '')"
says "to azoth run, of the directory that it is given" "others" "$(completes azoth run other --projection '')"
says "a new key lies in a directory" "db other sub" "$(completes azoth key make '')"
says "backup lists, verifies, prunes and forgets, or goes into a directory" "db forget list other prune sub verify" "$(completes azoth backup '')"
touch db/some.azb
says "a backup is a file" "db/some.azb" "$(completes azoth backup verify db/s)"
says "that is restored into a directory" "other" "$(completes azoth restore db/some.azb o)"
says "segments are in a directory" "" "$(completes azoth backup verify --archive db/s | one_line)"
rm db/some.azb
says "no name for a new one" "" "$(completes azoth projection new a | one_line)"

says "definitions are files of SQL, or on the way to one" "db one.sql other sub" "$(completes azoth projection check '')"
says "also those that are tried" "one.sql" "$(completes azoth projection try o | tr ' ' '\n' | grep -x one.sql)"
says "also below" "sub/two.sql" "$(completes azoth projection check sub/)"
says "libraries are shared objects" "db handlers.so other sub" "$(completes azoth run --load '')"
says "a database is a directory" "db" "$(completes azoth --dir d)"
says "with =, too" "other" "$(completes azoth lag --dir=o)"
says "how durable a commit is" "meta-lazy" "$(completes azoth-writer --writer-sync m)"
says "no word where a number is wanted" "" "$(completes azoth scan --limit '' | one_line)"

python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('db/run/worker-1.sock')" 2>out || cat out
says "endpoints are the workers' sockets" "ipc://$TMP/db/run/worker-1.sock" "$(completes azoth tx --to '')"
says "bash wants what is behind the colon" "//$TMP/db/run/worker-1.sock" "$(completes azoth get a --at ipc:/)"

# In a bash that is asked with a key, as one does: the word that it completes by itself.
cat >session.py <<'P'
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(PS1="ready> ", TERM="dumb", HISTFILE="/dev/null", INPUTRC="/dev/null")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
seen = b""
def until(what):
    global seen
    while what not in seen:
        got = os.read(fd, 4096)
        if not got: sys.exit("ended: %r" % seen)
        seen += got
until(b"ready> ")
os.write(fd, b". %s/client/completion/azoth.bash\n" % sys.argv[1].encode())
seen = b""; until(b"ready> ")
for written, completed in (b"azoth projection reb", b"uild "), (b"acc", b"ounts "), (b"--ab", b"ort "):
    seen = b""
    os.write(fd, written + b"\t")
    until(completed)
os.write(fd, b"\x15exit\r")
os.waitpid(pid, 0)
P
check "a bash completes a whole line with the tabulator" timeout 20 python3 session.py "$root" 2>out
checks_end
