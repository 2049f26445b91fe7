/*
 * client_json.c - transfers as JSON text over raw REQ sockets, as a client in another language makes
 * them: sent again, to the other worker, after some silence; a silent socket is made anew.
 */
#include "core/buf.h"
#include "core/clock.h"
#include "core/reqrep.h"
#include "tests/torture/client.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS   2
#define RESEND_NS (300 * NS_PER_MS)
#define SEND_MS   20

struct json_client {
    char url[WORKERS][200];
    struct reqrep *socket[WORKERS];
    uint32_t next;
};

int json_open(const char *endpoints, struct json_client **ret)
{
    struct json_client *j = calloc(1, sizeof *j);
    int rc = !j || sscanf(endpoints, "%199[^,],%199s", j->url[0], j->url[1]) != 2;
    for (int i = 0; i < WORKERS && !rc; i++)
        rc = reqrep_connect(j->url[i], &j->socket[i], NULL);
    if (rc) {
        json_close(j);
        return -1;
    }
    *ret = j;
    return 0;
}

void json_close(struct json_client *j)
{
    for (int i = 0; j && i < WORKERS; i++)
        reqrep_close(j->socket[i]);
    free(j);
}

/* A connection whose peer died inside a message would give rubbish from then on. */
static void renew(struct json_client *j, unsigned worker)
{
    reqrep_close(j->socket[worker]);
    j->socket[worker] = NULL;
    reqrep_connect(j->url[worker], &j->socket[worker], NULL);
}

static void send_to(struct json_client *j, struct flight *f)
{
    char text[1000];
    op_json(&f->context.record, f->deadline_ms, text, sizeof text);
    if (j->socket[f->worker])
        reqrep_request(j->socket[f->worker], f->number, bytes_str(text), SEND_MS, NULL);
    f->sent_ns = clock_mono_ns();
    f->copies++;
}

void json_send(struct json_client *j, struct flight *f)
{
    f->number = ++j->next & 0x7fffffffu;
    f->worker = j->next % WORKERS;
    f->resend_ns = RESEND_NS;
    f->deadline_ns = clock_mono_ns() + f->deadline_ms * NS_PER_MS;
    send_to(j, f);
}

static int code_of(const char *name)
{
    for (int code = 0; name && code > -60; code--)
        if (strcmp(azoth_code_name(code), name) == 0)
            return code;
    return AZOTH_ERR_CORRUPT;
}

static void answered(struct flight *f, struct azoth_bytes text)
{
    json_t *j = json_loadb(text.ptr, text.len, 0, NULL);
    if (json_is_true(json_object_get(j, "ok"))) {
        struct azoth_commit_info info = {
            .txn = (uint64_t)json_integer_value(json_object_get(j, "txn")),
            .first_event = (uint64_t)json_integer_value(json_object_get(j, "first_event")),
        };
        client_outcome(f, 0, &info, "");
    } else {
        const char *name = json_string_value(json_object_get(j, "error"));
        const char *message = json_string_value(json_object_get(j, "message"));
        client_outcome(f, code_of(name), NULL, message ? message : "(no JSON)");
    }
    json_decref(j);
}

void json_turn(struct json_client *j, struct flight *flights, unsigned n, int wait_ms)
{
    for (unsigned w = 0; w < WORKERS; w++) {
        struct azoth_bytes m;
        uint32_t number;
        while (j->socket[w] &&
               reqrep_collect(j->socket[w], wait_ms / WORKERS, &number, &m, NULL) == 1) {
            for (unsigned i = 0; i < n; i++)
                if (flights[i].used && flights[i].number == number) {
                    answered(&flights[i], m);
                    break;
                }
            reqrep_release(m);
            wait_ms = 0;
        }
    }
    uint64_t now = clock_mono_ns();
    for (unsigned i = 0; i < n; i++) {
        struct flight *f = &flights[i];
        if (!f->used)
            continue;
        if (now >= f->deadline_ns) {
            client_outcome(f, AZOTH_ERR_OUTCOME_UNKNOWN, NULL, "no answer");
        } else if (now - f->sent_ns >= f->resend_ns) {
            renew(j, f->worker);
            f->worker = (f->worker + 1) % WORKERS;
            f->resend_ns *= 2;
            send_to(j, f);
        }
    }
}
