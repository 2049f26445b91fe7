/* pauses.c - who holds writes, as status, lag, resume and unseal tell it. */
#include "client/cmd/view.h"

static const char *kind_name(const struct pause_info *p)
{
    return p->kind == PAUSE_SEAL ? "seal" : "pause";
}

const char *pause_whose(const struct pause_info *p, char out[PAUSE_WHOSE_TEXT])
{
    char who[4 * sizeof p->who];
    snprintf(out, PAUSE_WHOSE_TEXT, "a %s%s by %.31s, pid %u",
             p->stored ? "durable "
             : p->held ? "held "
                       : "",
             kind_name(p), bytes_print(bytes_str(p->who), who, sizeof who), p->pid);
    return out;
}

static void json_left(struct json_text *j, const char *key, uint64_t left_ns)
{
    if (left_ns == UINT64_MAX)
        out_null(j, key);
    else
        out_real(j, key, (double)left_ns / 1e9);
}

static uint64_t left_of(const struct pause_info *p, uint64_t now_ns)
{
    return p->until_ns == UINT64_MAX ? UINT64_MAX : p->until_ns > now_ns ? p->until_ns - now_ns : 0;
}

void json_pauses(struct json_text *j, const struct view_pauses *p, uint64_t now_ns)
{
    if (p->len)
        json_left(j, "pause_left_s", p->left_ns);
    out_open(j, "pauses", '[');
    for (uint32_t i = 0; i < p->len; i++) {
        const struct pause_info *row = &p->row[i];
        out_open(j, NULL, '{');
        out_str(j, "kind", kind_name(row));
        out_str(j, "by", row->who);
        out_u64(j, "pid", row->pid);
        out_bool(j, "held", row->held || row->stored);
        out_bool(j, "durable", row->stored);
        out_bool(j, "in_force", row->state == PAUSE_FORCE);
        out_real(j, "age_s", (double)(now_ns - row->since_ns) / 1e9);
        json_left(j, "left_s", left_of(row, now_ns));
        out_close(j, '}');
    }
    out_close(j, ']');
}

void print_pauses(const char *label, const struct view_pauses *p, uint64_t now_ns)
{
    static const char *const names[] = {"open", "pausing", "PAUSED", "SEALED"};
    char text[CMD_TIME_TEXT], whose[PAUSE_WHOSE_TEXT];
    if (p->left_ns == UINT64_MAX)
        printf("%s%s, until azoth unseal\n", label, names[p->writes]);
    else
        printf("%s%s, for %s more\n", label, names[p->writes], cmd_duration(p->left_ns, text));
    for (uint32_t i = 0; i < p->len; i++) {
        const struct pause_info *row = &p->row[i];
        printf("  %s, since %s", pause_whose(row, whose),
               cmd_duration(now_ns - row->since_ns, text));
        if (row->until_ns != UINT64_MAX)
            printf(", for %s more", cmd_duration(left_of(row, now_ns), text));
        puts("");
    }
}
