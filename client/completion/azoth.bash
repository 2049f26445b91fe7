# Completion of azoth and its services for bash. Commands, their flags and the settings are read from what the program
# prints with --help, so that completion knows what this very program takes; names of projections come from
# DIR/projections, endpoints from the sockets in DIR/run, or in /run/azoth/NAME. Needs nothing but bash.

# What the program $1 with the words behind it says with --help.
_azoth_help() { "$@" --help 2>/dev/null; }

# Flags of a help text: in the usage, above the first empty line, and at the beginning of the lines of its lists.
_azoth_flags() {
    sed -n -e '1,/^$/{s/[][|]/ /g;p;}' -e '/^$/,$s/^  *\([a-z-]* NAME \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' |
        grep -oE '(^|[[:space:]])--[a-z][a-z-]*' | tr -d ' \t' | sort -u
}

# Words that a command begins with: the alternatives of its usage that are written small.
_azoth_words() {
    sed -n '1{s/^usage: azoth [a-z-]* //;s/|/\n/g;p;}' | sed -n 's/^[[ ]*\([a-z][a-z-]*\)\( .*\)\{0,1\}$/\1/p'
}

# The line as a shell means it, up to where one writes, into `words`: bash cuts at = and :, so that --dir=DIR comes as
# three words, and an endpoint, too.
_azoth_line() {
    local i last=0
    words=("${COMP_WORDS[0]}")
    for ((i = 1; i <= COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        =) [ "$i" != "$COMP_CWORD" ] || words+=("") ;;
        :*) words[last]+=${COMP_WORDS[i]} ;;
        *) if [[ ${words[last]} == *: ]]; then words[last]+=${COMP_WORDS[i]}; else words+=("${COMP_WORDS[i]}"); fi ;;
        esac
        last=$((${#words[@]} - 1))
    done
}

# The database of this line: --dir, the directory that run was given, or the environment's.
_azoth_dir() {
    local i dir=${AZOTH_DIR-}
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        --dir) dir=${words[i + 1]} ;;
        run) case ${words[i + 1]} in -* | '') ;; *) dir=${words[i + 1]} ;; esac ;;
        esac
    done
    case $dir in '~/'*) dir=$HOME/${dir#'~/'} ;; esac
    printf '%s' "$dir"
}

_azoth_projections() {
    local dir f
    dir=$(_azoth_dir)
    for f in "$dir"/projections/*.sql; do
        [ ! -f "$f" ] || { f=${f##*/} && printf '%s\n' "${f%.sql}"; }
    done
}

_azoth_endpoints() {
    local dir f
    dir=$(_azoth_dir)
    dir=${dir%/}
    for f in "$dir"/run/worker-*.sock "/run${dir#/var/lib}"/worker-*.sock; do
        [ ! -S "$f" ] || printf 'ipc://%s\n' "$f"
    done
}

# --SECTION-KEY of each setting.
_azoth_settings() {
    "$1" config --json --dir / 2>/dev/null | grep -oE '"key":"[^"]*"' | cut -d'"' -f4 | tr ._ -- | sed 's/^/--/'
}

# Lines of $1 that begin with $2 become COMPREPLY; as of a word behind = or :, where bash has cut it.
_azoth_reply() {
    local line cut=
    case $2 in *:*) [[ $COMP_WORDBREAKS != *:* ]] || cut=${2%"${2##*:}"} ;; esac
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -z $line || $line != "$2"* ]] || COMPREPLY+=("${line#"$cut"}")
    done <<<"$1"
}

# Files that end in $1 (none: directories), and directories on the way to them.
_azoth_files() {
    local f
    compopt -o filenames 2>/dev/null
    COMPREPLY=()
    while IFS= read -r f; do
        [[ ! -d $f && ( -z $1 || $f != *"$1" ) ]] || COMPREPLY+=("$f")
    done < <(compgen -f -- "$2")
}

# The value of flag $1, of which $2 is there: 1 when the flag takes none.
_azoth_value() {
    case $1 in
    --archive | --dir | --move | --tmp) _azoth_files '' "$2" ;;
    --key-file | --passphrase-file | --sign-key | --signed-by) compopt -o default 2>/dev/null; COMPREPLY=() ;;
    --load) _azoth_files .so "$2" ;;
    --definition) _azoth_files .sql "$2" ;;
    --projection | --gone) _azoth_reply "$(_azoth_projections)" "$2" ;;
    --at | --feed-connect) _azoth_reply "$(_azoth_endpoints)" "$2" ;;
    --to) _azoth_reply "$(_azoth_endpoints)" "$2" ;;
    --writer-sync) _azoth_reply $'full\nmeta-lazy\nnone' "$2" ;;
    --log-level) _azoth_reply $'err\nwarning\nnotice\ninfo\ndebug' "$2" ;;
    --id | --deadline | --timeout | --seconds | --workers | --limit | --from | --last | --type | --max-events | \
        --before | --keep-events | --keep-days | --level | --segment-events | --max-seconds | --in-flight | --keys | --value-bytes | --shards | --uuid | --name | --instance) COMPREPLY=() ;;
    *) return 1 ;;
    esac
}

_azoth_commands() { _azoth_help "$1" | sed -n 's/^  \([a-z][a-z-]*\)  *[A-Z].*/\1/p'; }

# A word of command $2 of program $1; $3: the words before it, each with a blank behind it; $4: what is there.
_azoth_word() {
    case $2:$3 in
    help:) _azoth_reply "$(_azoth_commands "$1")" "$4" ;;
    init: | run: | "key:make ") _azoth_files '' "$4" ;;
    archive:) _azoth_files '' "$4"; COMPREPLY+=($(compgen -W "$(_azoth_help "$1" "$2" | _azoth_words)" -- "$4")) ;;
    backup:) _azoth_reply "$(_azoth_help "$1" backup | _azoth_words; compgen -d -- "$4")" "$4" ;;
    "backup:list " | "backup:prune " | "backup:forget ") _azoth_files '' "$4" ;;
    "backup:verify " | restore:) _azoth_files .azb "$4" ;;
    restore:*) _azoth_files '' "$4" ;;
    lag:* | query:) _azoth_reply "$(_azoth_projections)" "$4" ;;
    "projection:check "* | "projection:try "*) _azoth_files .sql "$4" ;;
    "projection:new "*) ;;
    projection:?* | dlq:?*) [ -n "${3#* }" ] || _azoth_reply "$(_azoth_projections)" "$4" ;;
    *:) _azoth_reply "$(_azoth_help "$1" "$2" | _azoth_words)" "$4" ;;
    esac
}

# Flags of command $2 of program $1; of the services, command is "-".
_azoth_all_flags() {
    printf '%s\n' --dir --help
    case $2 in
    '') printf '%s\n' --version ;;
    -) _azoth_help "$1" | _azoth_flags; printf '%s\n' --version; _azoth_settings "${1%-*}" ;;
    run) _azoth_help "$1" run | _azoth_flags; _azoth_settings "$1" ;;
    *) _azoth_help "$1" "$2" | _azoth_flags ;;
    esac
}

_azoth() {
    local words i cur prev command= before= program=${COMP_WORDS[0]}
    _azoth_line
    cur=${words[-1]} prev=${words[-2]}
    case ${program##*/} in azoth) ;; *) command=- ;; esac
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        -*) if _azoth_value "${words[i]}" ''; then i=$((i + 1)); fi ;;
        *) if [ -z "$command" ]; then command=${words[i]}; else before+="${words[i]} "; fi ;;
        esac
    done
    COMPREPLY=()
    case $prev in --*) if _azoth_value "$prev" "$cur"; then return; fi ;; esac
    case $cur:$command in
    -*) _azoth_reply "$(_azoth_all_flags "$program" "$command" | sort -u)" "$cur" ;;
    *:) _azoth_reply "$(_azoth_commands "$program")" "$cur" ;;
    *:-) case ${program##*/} in
        azoth-projector | azoth-effects) _azoth_reply "$(_azoth_projections)" "$cur" ;;
        esac ;;
    *) _azoth_word "$program" "$command" "$before" "$cur" ;;
    esac
}

complete -F _azoth azoth azoth-{writer,feed,worker,projector,effects,exporter}
