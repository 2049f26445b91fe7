#!/bin/bash
# mutate.sh [WORDS]: breaks the protocol in one place after another, in a copy of the sources, and sees
# that the model finds each break. A break whose pattern no longer fits the source is a failure: mend the
# list. With WORDS only the breaks whose sentence has them.
set -u
only=${1-}
cd "$(dirname "$0")/../.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r Makefile packages.list tools core shm writer workers client projector "$copy"
mkdir -p "$copy/tests"
cp -r tests/model "$copy/tests"
make -C "$copy" --no-print-directory build/tests/model/model build/tests/model/chaining >"$copy/log" 2>&1 || { cat "$copy/log"; exit 1; }
bad=0
program=model # that has to find the breaks

# broken SENTENCE FILE PERL-SUBSTITUTION
broken() {
    [[ $1 == *"$only"* ]] || return
    cp "$copy/$2" "$copy/original"
    perl -0pi -e "$3" "$copy/$2"
    if cmp -s "$copy/original" "$copy/$2"; then
        echo "not ok - the pattern of this break fits nothing: $1"
        bad=1
        return
    fi
    if ! make -C "$copy" --no-print-directory "build/tests/model/$program" >"$copy/log" 2>&1; then
        cat "$copy/log"
        echo "not ok - this break does not compile: $1"
        bad=1
    else
        timeout 300 "$copy/build/tests/model/$program" first >"$copy/log" 2>&1
        case $? in
        1) echo "ok - found: $1 ($(grep -m1 '^  [^ ]' "$copy/log" | sed 's/^ *//; s/:$//'))" ;;
        0) echo "not ok - not found: $1"; bad=1 ;;
        124) echo "not ok - no answer in 300 s: $1"; bad=1 ;;
        *) tail -5 "$copy/log"; echo "not ok - the model itself ended: $1"; bad=1 ;;
        esac
    fi
    cp "$copy/original" "$copy/$2"
}

broken 'a claim stores instead of swapping' shm/slot.c \
    's/if \(!atomic_compare_exchange_strong\(&sl->word, &word,\s*(slot_word\(SLOT_CLAIMED, p->index, ticket\))\)\)\s*return 0;/atomic_store(&sl->word, $1);/'
broken 'a claim keeps the ticket' shm/slot.c 's/\(slot_word_ticket\(word\) \+ 1\) & SLOT_TICKET_MASK/slot_word_ticket(word)/'
broken 'SUBMITTED is stored before the payload' shm/slot.c \
    's/int rc = payload_put\(s, sub->payload\);\s*if \(rc\)\s*return rc;(.*?)(    atomic_fetch_add_explicit\(&seg->participant)/$1    payload_put(s, sub->payload);\n$2/s'
broken 'the queue bit is set before SUBMITTED' shm/slot.c \
    's/(    atomic_store_explicit\(&sl->seq, atomic_fetch_add)(.*?)    queue_bit_set\(seg, s->index\);\n/    queue_bit_set(seg, s->index);\n$1$2/s'
broken 'giving up stores instead of swapping' shm/slot.c \
    's/uint64_t word = slot_word\(SLOT_SUBMITTED, s->owner->index, s->ticket\);\s*return atomic_compare_exchange_strong\(&shm_of\(s\)->word, &word,\s*(slot_word\(SLOT_SUBMITTED, SLOT_OWNER_WRITER, s->ticket\))\);/atomic_store(&shm_of(s)->word, $1);\n    return 1;/'
broken 'publishing stores instead of swapping' shm/slot.c \
    's/while \(!atomic_compare_exchange_weak\(&sl->word, &word,\s*(slot_word\(state, slot_word_owner\(word\), t->ticket\))\)\)\s*if .*?return;/atomic_store(&sl->word, $1);/s'
broken 'stripes are released after the result is published' shm/slot.c \
    's/(    if \(stripe_release_slot\(s, t->index, t->ticket\)\)\s*stripe_poke\(s, wakes\);\n)(.*?)(    uint32_t owner = slot_word_owner\(word\);)/$2$1$3/s'
broken 'the writer does not release stripes' shm/slot.c \
    's/    if \(stripe_release_slot\(s, t->index, t->ticket\)\)\s*stripe_poke\(s, wakes\);\n//'
broken 'intents stay when a slot is freed' shm/slot.c 's/    atomic_store_explicit\(&sl->intents, 0, memory_order_relaxed\);\n//'
broken 'blocks stay when a slot is freed' shm/slot.c 's/        blocks_free\(s, index, ticket\);\n/        (void)blocks_free;\n/'
broken 'half-taken blocks are kept' shm/slot.c 's/return AZOTH_ERR_BUSY;\n\}\n\nstatic void blocks_free/return 0;\n}\n\nstatic void blocks_free/'
broken 'the queue is read and then emptied' shm/slot.c \
    's/uint64_t bits = atomic_exchange\(&s->header->queue_bits\[w\], 0\);/uint64_t bits = atomic_load(&s->header->queue_bits[w]);\n        atomic_store(&s->header->queue_bits[w], 0);/'
broken 'a reaper sets no queue bit' shm/slot.c 's/        queue_bit_set\(s, index\);\n(        CRASH_POINT\(reaper_requeued\);)/$1/'
broken 'a reaper sets the queue bit after the swap' shm/slot.c \
    's/        queue_bit_set\(s, index\);\n(        CRASH_POINT\(reaper_requeued\);.*?return 0;\n)/$1        queue_bit_set(s, index);\n/s'
broken 'a reaper frees what is submitted' shm/slot.c \
    's/(int slot_reap.*?)if \(slot_word_state\(word\) == SLOT_SUBMITTED\)/$1if (slot_word_state(word) == SLOT_FREE)/s'
broken 'a reaper marks without swapping' shm/slot.c \
    's/if \(!atomic_compare_exchange_strong\(&sl->word, &word, mine\)\)\s*return 0;/atomic_store(&sl->word, mine);/'
broken 'a reaper releases no stripes' shm/slot.c 's/(CRASH_POINT\(reaper_marked\);\s*)release_and_poke\(s, index, ticket\);/$1/'
broken 'a reaper does not look whose row it is now' shm/reaper.c \
    's/        if \(atomic_load\(&s->participant\[dead\]\.word\) != row_word\)\s*return 0;\n//'
broken 'a row is freed without a second pass' shm/reaper.c \
    's/        if \(slot_names\(atomic_load\(&s->slot\[i\]\.word\), dead\)\)\s*return 0;[^\n]*\n/        (void)i;\n/'
broken 'a row is freed whoever has it' shm/reaper.c \
    's/if \(!atomic_compare_exchange_strong\(&row->word, &row_word, row_word & ~0xffull\)\)\s*return 0;/atomic_store(&row->word, row_word & ~0xffull);/'
broken 'a row is joined without the lock' shm/participant.c 's/        if \(!got\)\s*continue;\n//'
broken 'an exclusive taker does not look at the bits' shm/stripe.c 's/return !shared_by_others\(s, st, slot\);/(void)shared_by_others;\n        return 1;/'
broken 'an exclusive taker forgets other holders' shm/stripe.c \
    's/if \(!atomic_compare_exchange_strong\(&st->exclusive, &seen, own\)\)\s*return 0;/atomic_store(&st->exclusive, own);/'
broken 'a shared taker does not look again' shm/stripe.c 's/if \(atomic_load\(&st->exclusive\) == 0\)\s*return 1;/if (st)\n        return 1;/'
broken 'a shared taker keeps its bit' shm/stripe.c 's/(return 1;\n)    atomic_fetch_and\(&st->shared\[slot \/ 64\], ~bit\);\n/$1/'
broken 'a release does not look whose it is' shm/stripe.c \
    's/if \(!atomic_compare_exchange_strong\(&st->exclusive, &own, 0\)\)\s*return 0;/(void)own;\n        atomic_store(&st->exclusive, 0);/'
broken 'a release wakes nobody' shm/stripe.c 's/    if \(who & STRIPE_SLEEPERS\) \{/    if (who == 0) {/'
broken 'a sleeper for a stripe does not look once more' shm/stripe.c 's/looks_free\(s, slot, ticket, intent\) \|\| /(void)looks_free, (void)slot, (void)ticket, /'
broken 'a sleeper for its answer leaves no word' shm/slot.c 's/    atomic_store\(&sl->waits, 1\);\n//'
broken 'an answer wakes those of another slot' shm/slot.c 's/waits_slot\(t->index\)/waits_slot(t->index + 1)/'
broken 'who frees a slot wakes nobody' shm/slot.c 's/if \(atomic_load\(&s->header->free_waiters\) && atomic_exchange\(&s->header->free_waiters, 0\)\)/if (index == UINT32_MAX)/'
broken 'the writer looks before it says that it sleeps' writer/writer.c \
    's/    atomic_store\(&h->writer_sleeps, 1\);\n(    int held.*?\n    if \(!slot_queued.*?held\)\)\n)/$1    {\n    atomic_store(\&h->writer_sleeps, 1);\n/s; s/(shm_wait\(&h->writer_wake, seen, timeout_ns\);\n)/$1    }\n/'
broken 'the writer applies what it has just seen' writer/writer.c 's/w->closed < limit \? w->closed : limit/limit/'
broken 'a new writer does not read the batch record' writer/writer.c 's/i < h\.count; i\+\+/i < h.count * 0; i++/'
broken 'a new writer does not scan' writer/writer.c 's/slot_take\(w->segment, 1, w->pending\)/slot_take(w->segment, 0, w->pending)/'
broken 'preflight reads before it holds its stripes' workers/preflight.c 's/f->next = NEXT_LOCK;/f->next = NEXT_EVALUATE;/'

program=chaining
broken 'an abort does not wait for the thread' writer/chaining.c 's/        take_back\(ch\);\n(        clear)/        ch->state = EMPTY;\n$1/'
broken 'an abort leaves the offer with the thread' writer/chaining.c 's/        take_back\(ch\);\n        clear\(&ch->offered\);/        (void)0;/'
broken 'what is being hashed is not waited for' writer/chaining.c 's/while \(ch->state == TAKEN\)\s*pthread_cond_wait\(&ch->changed, &ch->lock\);/(void)0;/'
broken 'what nobody has begun is waited for' writer/chaining.c 's/while \(ch->state == TAKEN\)/while (ch->state == TAKEN || ch->state == OFFERED)/'
broken 'who waits looks once' writer/chaining.c 's/while \(ch->state == TAKEN\)/if (ch->state == TAKEN)/'
broken 'the thread takes nothing' writer/chaining.c 's/        ch->state = TAKEN;\n//'
broken 'the thread wakes nobody' writer/chaining.c 's/(ch->state = DONE;\n)        pthread_cond_broadcast\(&ch->changed\);\n/$1/'
broken 'the thread is not woken by an offer' writer/chaining.c 's/    pthread_cond_broadcast\(&ch->changed\);\n(    ch->gathered = spare)/$1/'
broken 'the thread is not woken by the end' writer/chaining.c 's/    pthread_cond_broadcast\(&ch->changed\);\n(\s*pthread_join)/$1/'
broken 'the thread looks for its end before it sleeps alone' writer/chaining.c 's/while \(ch->state != OFFERED && !ch->ending\)/while (ch->state != OFFERED)/'
broken 'an offer is woken before it is there' writer/chaining.c \
    's/(    struct texts spare = ch->offered;\n)(.*?)    pthread_cond_broadcast\(&ch->changed\);\n/    pthread_cond_broadcast(&ch->changed);\n$1$2/s'
broken 'an offer is stored before the lock' writer/chaining.c \
    's/    pthread_mutex_lock\(&ch->lock\);\n(    ch->offered = ch->gathered;\n.*?ch->state = OFFERED;\n)/$1    pthread_mutex_lock(&ch->lock);\n/s'
broken 'the thread says that it is done before the hash' writer/chaining.c \
    's/(        ch->state = )TAKEN;\n(        pthread_mutex_unlock.*?)        ch->state = DONE;\n/$1DONE;\n$2/s'
broken 'an offer begins from the value of the one before' writer/chaining.c 's/    memcpy\(ch->value, ch->at.value, CHAIN_BYTES\);\n//'
broken 'what was committed is not settled by the next head' writer/chaining.c 's/    if \(ch->trailing\)\n        settle\(ch\);/    if (ch->trailing == 2)\n        settle(ch);/'
broken 'what is hashed is hashed again' writer/chaining.c 's/    if \(!take_back\(ch\)\)\n    /    take_back(ch);\n/'
broken 'an aborted batch stays gathered' writer/chaining.c 's/(void chaining_abort.*?)    clear\(&ch->gathered\);\n/$1/s'
broken 'an abort makes the record whole' writer/chaining.c 's/return ch->trails;/return ch->trailing;/'
broken 'it ends without its thread' writer/chaining.c 's/(        )(pthread_join\(ch->thread, NULL\);)/$1if (ch->ending == 2)\n            $2/'
exit $bad
