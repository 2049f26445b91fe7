/*
 * failure.c - what becomes of an event whose handler failed.
 *
 * The event's own changes are undone before this is asked, and what is decided is written into the same
 * transaction as the cursor: no failed event is lost, and none is dealt with twice.
 *
 *   fail-fast       nothing is written; the caller commits what came before and stops
 *   log-and-skip    a note, told behind the commit
 *   dead-letter     a row of azoth_dlq
 *   retry           azoth_retry holds the event, its failures and when it is due: a restart goes on
 *                   counting where it was. After the last attempt the strategy behind `then`; when that is
 *                   fail-fast the row stays, and a restart makes one attempt and stops again
 *   custom          the library says which of these it is, each time; azoth_retry counts as for retry
 *
 * A failure counts for the breaker whatever its strategy is, except fail-fast's, which ends the process.
 */
#include "projector/failure.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"

#include <string.h>
#include <sys/random.h>

static int more_notes(struct table *t)
{
    uint32_t room = t->notes_room ? t->notes_room * 2 : NOTES_MAX;
    if (t->notes_room && !t->tells_each)
        return 0;
    struct note *more = realloc(t->note, room * sizeof *more);
    if (!more)
        return 0;
    t->note = more;
    t->notes_room = room;
    return 1;
}

void failure_note(struct table *t, enum failure_action action, uint64_t event, const char *error)
{
    if (t->notes == t->notes_room && !more_notes(t)) {
        t->notes_more++;
        return;
    }
    struct note *n = &t->note[t->notes++];
    n->action = action;
    n->event = event;
    snprintf(n->error, sizeof n->error, "%s", error);
}

static int breaker_counts(struct table *t, const struct event_record *ev, struct azoth_error *err)
{
    char text[100];
    const struct sql_breaker *def = &t->def->breaker;
    if (!def->failures)
        return 0;
    if (breaker_fails(&t->faults.breaker, def, table_wall(t), table_mono(t))) {
        snprintf(text, sizeof text, "the breaker opens for %llu ms",
                 (unsigned long long)def->open_ms);
        failure_note(t, FAILURE_OPENS, ev->id, text);
    }
    return breaker_store(t, err);
}

/* Counts the attempt; none follows yet. */
static void count_attempt(struct table *t, const struct event_record *ev,
                          const struct azoth_error *why)
{
    struct retry *r = &t->faults.retry;
    if (r->event != ev->id)
        *r = (struct retry){.event = ev->id, .first_ns = table_wall(t)};
    r->failures += r->failures < UINT32_MAX;
    r->last_ns = table_wall(t);
    r->code = why->foreign;
    snprintf(r->error, sizeof r->error, "%s", why->message);
    r->delay_ms = 0;
    r->next_ns = r->last_ns;
}

/* The next attempt is in so long; the projection stands until then. */
static int again_in(struct table *t, const struct event_record *ev, uint64_t delay_ms,
                    const struct azoth_error *why, enum verdict *ret, struct azoth_error *err)
{
    struct retry *r = &t->faults.retry;
    r->delay_ms = delay_ms;
    r->next_ns = r->last_ns + (int64_t)(delay_ms * NS_PER_MS);
    t->retry_due_ns = table_mono(t) + delay_ms * NS_PER_MS;
    failure_note(t, FAILURE_RETRIES, ev->id, why->message);
    *ret = VERDICT_STAND;
    int rc = retry_store(t, err);
    return rc ? rc : breaker_counts(t, ev, err);
}

static int dead_letter(struct table *t, const struct event_record *ev,
                       const struct azoth_error *why, struct azoth_error *err)
{
    const struct retry *r = &t->faults.retry;
    const struct sql_replay *replay = &t->def->replay;
    struct dlq_letter l = {.ev = *ev,
                           .failures = 1,
                           .first_ns = table_wall(t),
                           .last_ns = table_wall(t),
                           .code = why->foreign,
                           .error = why->message};
    if (r->event == ev->id) {
        l.failures = r->failures;
        l.first_ns = r->first_ns;
    }
    if (replay->every_ms)
        l.next_ns = l.last_ns + (int64_t)(backoff_ms(&replay->backoff, 1, 0) * NS_PER_MS);
    int rc = dlq_insert(t, &l, err);
    if (rc)
        return rc;
    CRASH_POINT(projector_dead_lettered);
    failure_note(t, FAILURE_DEAD_LETTERED, ev->id, why->message);
    return 0;
}

/* What the library says; of RETRY, *ret_ms is when. Attempts are counted. */
static enum strategy ask_library(struct table *t, const struct event_record *ev,
                                 const struct azoth_error *why, uint64_t *ret_ms)
{
    const struct retry *r = &t->faults.retry;
    const struct azoth_projection_failure failure = {.error = why->message,
                                                     .code = why->foreign,
                                                     .attempts = r->failures,
                                                     .first_failure_ns = r->first_ns};
    switch (library_decide(t->library, ev, &failure, ret_ms)) {
    case AZOTH_PROJECTION_SKIP:
        return STRATEGY_LOG_AND_SKIP;
    case AZOTH_PROJECTION_DEAD_LETTER:
        return STRATEGY_DEAD_LETTER;
    case AZOTH_PROJECTION_RETRY:
        return STRATEGY_RETRY;
    default:
        return STRATEGY_FAIL_FAST;
    }
}

/* In place of a failure's strategy: what remains when attempts and library have had their say. */
static enum strategy settle(struct table *t, const struct event_record *ev,
                            const struct azoth_error *why, uint64_t *ret_ms)
{
    const struct sql_policy *policy = table_policy(t, ev->type);
    const struct retry *r = &t->faults.retry;
    enum strategy strategy = policy->strategy;
    if (strategy == STRATEGY_RETRY || strategy == STRATEGY_CUSTOM)
        count_attempt(t, ev, why);
    if (strategy == STRATEGY_RETRY && r->failures <= policy->count) {
        uint64_t random = 0;
        /* Too few bits are a time without jitter: no reason to fail. */
        (void)!getrandom(&random, sizeof random, GRND_NONBLOCK);
        *ret_ms = backoff_ms(&policy->backoff, r->failures, random);
        return STRATEGY_RETRY;
    }
    if (strategy == STRATEGY_RETRY)
        strategy = policy->then;
    return strategy == STRATEGY_CUSTOM ? ask_library(t, ev, why, ret_ms) : strategy;
}

int failure_skips_released(struct table *t, const struct event_record *ev,
                           const struct azoth_error *why)
{
    const struct sql_policy *policy = table_policy(t, ev->type);
    enum strategy last = policy->strategy == STRATEGY_RETRY ? policy->then : policy->strategy;
    const struct azoth_projection_failure failure = {.error = why->message,
                                                     .code = why->foreign,
                                                     .attempts = 1,
                                                     .first_failure_ns = table_wall(t)};
    uint64_t ignored;
    if (last == STRATEGY_CUSTOM)
        return library_decide(t->library, ev, &failure, &ignored) == AZOTH_PROJECTION_SKIP;
    return last == STRATEGY_LOG_AND_SKIP;
}

int failure_decide(struct table *t, const struct event_record *ev, const struct azoth_error *why,
                   enum verdict *ret, struct azoth_error *err)
{
    uint64_t ms = 0;
    t->failures_open++;
    enum strategy strategy = settle(t, ev, why, &ms);
    if (strategy == STRATEGY_RETRY)
        return again_in(t, ev, ms, why, ret, err);
    /* The row of attempts goes when the cursor passes; before that it is what a restart finds. */
    int rc = t->faults.retry.event == ev->id ? retry_store(t, err) : 0;
    if (rc)
        return rc;
    *ret = strategy == STRATEGY_FAIL_FAST ? VERDICT_FAIL : VERDICT_GO_ON;
    if (strategy == STRATEGY_FAIL_FAST)
        return 0;
    if (strategy == STRATEGY_DEAD_LETTER)
        rc = dead_letter(t, ev, why, err);
    else
        failure_note(t, FAILURE_SKIPPED, ev->id, why->message);
    return rc ? rc : breaker_counts(t, ev, err);
}

int failure_success(struct table *t, struct azoth_error *err)
{
    if (!breaker_succeeds(&t->faults.breaker, &t->def->breaker))
        return 0;
    return breaker_store(t, err);
}

int failure_passes(struct table *t, uint64_t cursor, struct azoth_error *err)
{
    return t->faults.retry.event && t->faults.retry.event <= cursor ? retry_clear(t, err) : 0;
}

void table_standing(struct table *t, struct table_standing *ret)
{
    struct faults *f = &t->faults;
    uint64_t now = table_mono(t), due = 0;
    breaker_look(&f->breaker, now);
    if (f->retry.event && t->retry_due_ns > due)
        due = t->retry_due_ns;
    if (f->breaker.at == BREAKER_OPEN && f->breaker.due_ns > due)
        due = f->breaker.due_ns;
    *ret = (struct table_standing){.wait_ns = due > now ? due - now : 0,
                                   .event = f->retry.event,
                                   .failed = t->failed_event,
                                   .failures = f->retry.failures,
                                   .breaker = f->breaker.at,
                                   .waiting = f->dlq.waiting,
                                   .retired = f->dlq.retired,
                                   .parked = f->dlq.parked,
                                   .error = f->retry.event ? f->retry.error : ""};
}
