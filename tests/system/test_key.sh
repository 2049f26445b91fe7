#!/bin/bash
# azoth key: what it makes, for whom it is readable, and that nothing is written over.
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
cd "$TMP" || exit 1
mode() { stat -c %a "$1"; }
umask 0
exits "a key is made" 0 "made a key for backups in k" azoth key make k
says "for its owner alone, whatever the umask" 600 "$(mode k)"
check "of 64 digits" grep -qxE '[0-9a-f]{64}' k
check "and one line" test "$(wc -lc <k | xargs)" = "1 65"
check "which is not told" eval '! grep -qf k out'
was=$(cat k)
exits "a second one is refused" 2 "(AZOTH_ERR_DUPLICATE)" azoth key make k
says "and the first one stays" "$was" "$(cat k)"
azoth key make other >/dev/null
check "no two are the same" test "$was" != "$(cat other)"

exits "a pair for signatures is made" 0 "s.pub for whoever checks" azoth key make --sign s
says "its secret is its owner's, its public key everybody's" "600 644" "$(mode s) $(mode s.pub)"
public=$(sed 's/azoth-sign-public //' s.pub)
check "the public key is told" grep -qxF "  public  $public" out
check "the secret is not" eval '! grep -qF "$(sed "s/azoth-sign-secret //" s | cut -c1-64)" out'
exits "a second pair is refused" 2 "(AZOTH_ERR_DUPLICATE)" azoth key make s --sign
rm s
exits "also when half of it is there" 2 "s.pub is there" azoth key make --sign s
check "and then no half is made" test ! -e s
says "JSON has the public key" "true t $(azoth key make --sign t --json | tee json | jq -r .public)" \
    "$(jq -r '"\(.ok) \(.file)"' json) $(sed 's/azoth-sign-public //' t.pub)"
says "and of a key its file" '{"ok":true,"file":"u"}' "$(azoth key make u --json)"

exits "a directory that is not there is told" 4 "none/k" azoth key make none/k
for words in "" "make" "make a b" "show k" "k"; do exits "azoth key $words is refused" 2 "(AZOTH_ERR_USAGE)" azoth key $words; done
says "no more was made than that" "json k other out s.pub t t.pub u" "$(ls | xargs)"
checks_end
