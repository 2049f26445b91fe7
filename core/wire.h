/*
 * wire.h - messages between processes, as tpl images.
 *
 * tpl is used for envelopes only: scalars and 'B'. A body is bytes in a format of ours with its own
 * checks. Before tpl_load every image from outside is checked: length, magic, flags byte, length
 * field, exact format string, every length inside the buffer, nothing left over (LIBRARIES: tpl
 * trusts all of these). tpl's fatal hook is replaced: it must not end the process.
 *
 * Decoded messages borrow the image. Encoders append the image to a buf.
 */
#ifndef CORE_WIRE_H
#define CORE_WIRE_H

#include "core/buf.h"
#include "core/record.h"
#include "core/txn.h"

/* One constant for both ends of every socket; the largest event with its envelope fits. */
#define WIRE_MESSAGE_MAX  (8u << 20)
#define WIRE_ENVELOPE_MAX 8192u
_Static_assert(RECORD_EVENT_MAX + RECORD_FRAME_HEADER + WIRE_ENVELOPE_MAX <= WIRE_MESSAGE_MAX,
               "the largest event fits a message");
_Static_assert(AZOTH_TXN_BYTES_MAX + WIRE_ENVELOPE_MAX <= WIRE_MESSAGE_MAX,
               "the largest transaction fits a message");

enum wire_kind {
    WIRE_TX = 1,      /* body: transaction image */
    WIRE_CALL = 2,    /* name: command; body: transaction image of READ/WRITE declarations;
                         args: the command's argument bytes */
    WIRE_GET = 3,     /* name: key */
    WIRE_SCAN = 4,    /* name: from (inclusive); body: to (exclusive; empty = no end);
                         args: prefix; cursor: unused; after: exclusive key, may be empty */
    WIRE_EVENTS = 5,  /* from, to; name: type filter, may be empty */
    WIRE_OUTCOME = 6, /* id */
    WIRE_PING = 7,
};

enum wire_request_flags {
    WIRE_AT_LEAST_ONCE = 1,
    WIRE_WAIT_PAUSED = 2,
};

struct wire_request {
    uint32_t kind;         /* enum wire_kind */
    uint32_t flags;        /* enum wire_request_flags */
    uint32_t deadline_ms;  /* 1 to 3,600,000 */
    uint32_t limit;        /* rows of a page: 1 to 1000 */
    uint64_t from, to;     /* event ids; to = 0: no end */
    struct azoth_bytes id; /* 0 or AZOTH_ID_BYTES bytes */
    struct azoth_bytes name, body, args, after;
};

enum wire_answer_flags {
    WIRE_DUPLICATE = 1,
    WIRE_MORE = 2, /* the page is not the last */
};

struct wire_answer {
    uint32_t kind; /* of the request; 0 when it could not be read */
    int32_t code;  /* enum azoth_code */
    uint32_t flags;
    uint64_t txn, first_event, last_event; /* of events pages: last_event is the head */
    uint32_t keys_written, keys_deleted, keys_missing;
    struct azoth_bytes id;      /* of the request, or empty */
    struct azoth_bytes message; /* UTF-8; empty on success */
    struct azoth_bytes body;    /* GET, SCAN: items; EVENTS: frames (record.h) */
};

/* Items of GET and SCAN bodies: u16 key_len | u16 type | u32 value_len | u64 version | key | value.
 */
int wire_item_add(struct buf *out, struct azoth_bytes key, const struct state_record *st);
/* Begin with *at = 0. 1 and outputs, 0 at the end, AZOTH_ERR_CORRUPT. Checks the value's encoding.
 */
int wire_item_next(struct azoth_bytes items, size_t *at, struct azoth_bytes *ret_key,
                   struct state_record *ret);

/* The feed's request: sent by a projector on the pipeline that azoth-feed binds. */
struct wire_pull {
    uint8_t uuid[16];       /* of the database */
    uint64_t subscription;  /* chosen by the projector, new at each (re)subscription */
    uint64_t instance;      /* of the projector's process */
    uint64_t cursor;        /* newest event id received in order; 0 = none */
    uint64_t applied;       /* newest event id applied durably: the measure of lag */
    uint32_t cursor_check;  /* checksum of the event at the cursor; 0 with cursor 0 */
    uint32_t credit_bytes;  /* bytes of frames behind cursor that may be on their way; 0: none */
    uint32_t shard, shards; /* 0 of 1 when it is not split */
    uint32_t state;         /* enum projection_state of shm/projection_row.h */
    uint32_t breaker;       /* enum breaker_at of projector/breaker.h, which the row repeats */
    uint64_t errors;        /* failures so far */
    uint64_t dead_waiting, dead_retired, dead_parked; /* dead letters in the projection's file */
    uint64_t stands_event;                            /* that is being tried again; 0: none */
    uint64_t next_ns;            /* from now until it, or the breaker, lets go on; 0: now */
    uint64_t wal_bytes;          /* of its file's WAL; WIRE_NO_WAL: it has none */
    uint64_t wal_pinned_for_ns;  /* so long a reader has kept that from starting over; 0: none */
    struct azoth_bytes name;     /* of the projection: 1 to AZOTH_NAME_MAX bytes */
    struct azoth_bytes endpoint; /* where the projector has bound its PULL */
    struct azoth_bytes types;    /* wanted event types: u8 length and bytes each; empty = all */
    struct azoth_bytes shard_by; /* payload field, or empty: the stream key */
    struct azoth_bytes error;    /* last failure as text, may be empty */
    struct azoth_bytes
        samples; /* of batches applied since the last pull: struct wire_sample each */
};

#define WIRE_NO_WAL UINT64_MAX

/* How one batch was applied: two u32 in the image. UINT32_MAX: as much or more. */
struct wire_sample {
    uint32_t apply_us; /* the SQLite transaction */
    uint32_t lag_us; /* from the commit of its oldest event until it was applied; wall clocks of two
                          machines perhaps */
};
#define WIRE_SAMPLE      8u
#define WIRE_SAMPLES_MAX 64u
void wire_sample_put(unsigned char out[WIRE_SAMPLE], const struct wire_sample *s);
struct wire_sample wire_sample_get(const unsigned char in[WIRE_SAMPLE]);

struct wire_batch {
    uint64_t subscription;
    uint64_t first, last; /* the batch covers these ids: first = cursor + 1; last >= first - 1 */
    uint64_t head;        /* newest event id when it was made */
    uint32_t last_check;  /* checksum of event `last`; 0 when last is 0 */
    int32_t code;         /* 0, or why the feed refuses: AZOTH_ERR_DIVERGED, ... */
    struct azoth_bytes message;
    struct azoth_bytes frames; /* record.h; those of first..last that pass the filter */
};

/* What a worker of an effects projection says of an event that it was given. */
enum wire_effect_result {
    WIRE_EFFECT_DONE = 0,
    WIRE_EFFECT_FAILED = 1,
    WIRE_EFFECT_GIVEN_BACK = 2, /* it was not tried to its end: no failure of the event */
};

/* A worker of an effects projection reports what became of one event and asks for the next. */
struct wire_effect_ask {
    uint64_t instance;         /* of the worker's process */
    uint64_t id;               /* event that is reported; 0: none */
    uint32_t grant;            /* the number that it was given under */
    uint32_t result;           /* enum wire_effect_result */
    uint32_t wants;            /* 1: another event */
    struct azoth_bytes worker; /* its name: 1 to AZOTH_NAME_MAX bytes */
    struct azoth_bytes error;  /* of WIRE_EFFECT_FAILED, may be empty */
};

struct wire_effect_answer {
    uint64_t id;              /* event to run the command for; 0: none now, ask again */
    uint32_t grant;           /* counts how often the event was given out */
    uint32_t failures;        /* attempts of it that have failed */
    uint32_t lease_ms;        /* from the receipt of this answer */
    struct azoth_bytes frame; /* record.h: that event */
};

/*
 * Encoders: 0 or AZOTH_ERR_NOMEM. Decoders: 0, or AZOTH_ERR_BAD_REQUEST with a sentence; every
 * field is within its limits afterwards (bodies are checked by their own users).
 */
int wire_request_encode(struct buf *out, const struct wire_request *m);
int wire_request_decode(struct azoth_bytes image, struct wire_request *ret,
                        struct azoth_error *err);
int wire_answer_encode(struct buf *out, const struct wire_answer *m);
int wire_answer_decode(struct azoth_bytes image, struct wire_answer *ret, struct azoth_error *err);
int wire_pull_encode(struct buf *out, const struct wire_pull *m);
int wire_pull_decode(struct azoth_bytes image, struct wire_pull *ret, struct azoth_error *err);
int wire_effect_ask_encode(struct buf *out, const struct wire_effect_ask *m);
int wire_effect_ask_decode(struct azoth_bytes image, struct wire_effect_ask *ret,
                           struct azoth_error *err);
int wire_effect_answer_encode(struct buf *out, const struct wire_effect_answer *m);
int wire_effect_answer_decode(struct azoth_bytes image, struct wire_effect_answer *ret,
                              struct azoth_error *err);
int wire_batch_encode(struct buf *out, const struct wire_batch *m);
/*
 * A batch whose frames are written where they are sent from: wire_batch_begin() clears out and leaves
 * room for the envelope; the frames are appended behind it; wire_batch_seal() makes it the image of
 * *m, whose frames are what was appended and whose message is empty. NOMEM.
 */
#define WIRE_BATCH_ENVELOPE 65u
int wire_batch_begin(struct buf *out);
int wire_batch_seal(struct buf *out, const struct wire_batch *m);
int wire_batch_decode(struct azoth_bytes image, struct wire_batch *ret, struct azoth_error *err);

/* 1 when the first byte says JSON text ('{' after white space) rather than a tpl image. */
int wire_is_json(struct azoth_bytes message);

#endif
