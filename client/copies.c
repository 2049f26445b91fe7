#include "client/copies.h"

void copies_sent(struct copies *c, uint32_t endpoint, uint32_t breaks)
{
    /* Earlier ones on a connection that has broken since are gone with it. */
    copies_broke(c, endpoint, breaks);
    c->tag[endpoint] = breaks;
    c->out[endpoint]++;
    c->sent_after_break = 1;
}

void copies_answered(struct copies *c, uint32_t endpoint)
{
    if (c->out[endpoint])
        c->out[endpoint]--;
}

void copies_unknown(struct copies *c, uint32_t endpoint)
{
    copies_answered(c, endpoint);
    c->sent_after_break = 0;
    c->broke = 1;
}

int copies_broke(struct copies *c, uint32_t endpoint, uint32_t breaks)
{
    if (!c->out[endpoint] || c->tag[endpoint] == breaks)
        return 0;
    c->out[endpoint] = 0;
    c->sent_after_break = 0;
    c->broke = 1;
    return 1;
}

void copies_lose(struct copies *c, uint32_t endpoint)
{
    c->lost |= c->out[endpoint] != 0;
    c->out[endpoint] = 0;
}

uint32_t copies_out(const struct copies *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < REMOTE_ENDPOINTS_MAX; i++)
        n += c->out[i];
    return n;
}

int copies_settled(const struct copies *c, int looked)
{
    return !c->lost && copies_out(c) == 0 && (looked ? c->sent_after_break : !c->broke);
}
