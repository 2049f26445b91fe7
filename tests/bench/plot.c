/*
 * plot.c - points as an SVG picture: logarithmic axes with labelled ticks, a line for each series,
 * its name in a legend, and the figure at each point.
 */
#include "tests/bench/report.h"

#include <string.h>

#define LEFT   110.0 /* of the area in which points lie; y grows downwards */
#define RIGHT  530.0
#define TOP    60.0
#define BOTTOM 390.0
#define INSET  20.0 /* no point lies on an axis */

struct frame {
    FILE *f;
    double lo_x, hi_x, lo_y, hi_y;
};

static double place(double v, double least, double most, double from, double to)
{
    double span = __builtin_log2(most / least);
    return from + (span > 0 ? __builtin_log2(v / least) / span : 0.5) * (to - from);
}

static double at_x(const struct frame *fr, double x)
{
    return place(x, fr->lo_x, fr->hi_x, LEFT + INSET, RIGHT - INSET);
}

static double at_y(const struct frame *fr, double y)
{
    return place(y, fr->lo_y, fr->hi_y, BOTTOM - INSET, TOP);
}

/* ---- text ---- */

static void put_escaped(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else
            fputc(*s, f);
    }
}

/* attributes: as they stand in the element. */
static void put_text(FILE *f, double x, double y, const char *attributes, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    put_escaped(f, text);
    fputs("</text>\n", f);
}

/* "12,345"; below 10 with a decimal. */
static const char *figure(double v, char out[40])
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, v < 10 && v != (int)v ? "%.1f" : "%.0f", v);
    int whole = (int)strcspn(digits, "."), o = 0;
    for (int i = 0; i < n; i++) {
        if (i && i < whole && (whole - i) % 3 == 0)
            out[o++] = ',';
        out[o++] = digits[i];
    }
    out[o] = 0;
    return out;
}

/* ---- axes ---- */

/* The next of 1, 2, 5, 10, 20, 50, ... above v; v is one of them. */
static double tick_after(double v)
{
    double decade = 1;
    while (decade * 10 <= v * 1.001)
        decade *= 10;
    while (decade > v * 1.001)
        decade /= 10;
    double m = v / decade;
    return decade * (m < 1.5 ? 2 : m < 3 ? 5 : 10);
}

static double tick_at_or_below(double v)
{
    double t = 1e-3;
    while (tick_after(t) <= v)
        t = tick_after(t);
    return t;
}

static void find_ranges(struct frame *fr, const struct plot *p)
{
    fr->lo_x = fr->lo_y = 1e300;
    fr->hi_x = fr->hi_y = 0;
    for (int i = 0; i < p->len; i++) {
        const struct plot_point *q = &p->point[i];
        must(q->x > 0 && q->y > 0, "a point of a plot is not above 0");
        fr->lo_x = q->x < fr->lo_x ? q->x : fr->lo_x;
        fr->hi_x = q->x > fr->hi_x ? q->x : fr->hi_x;
        fr->lo_y = q->y < fr->lo_y ? q->y : fr->lo_y;
        fr->hi_y = q->y > fr->hi_y ? q->y : fr->hi_y;
    }
    fr->lo_y = tick_at_or_below(fr->lo_y);
    fr->hi_y = tick_after(tick_at_or_below(fr->hi_y));
}

static int seen_before(const struct plot *p, int i)
{
    for (int k = 0; k < i; k++)
        if (p->point[k].x == p->point[i].x)
            return 1;
    return 0;
}

static void draw_axes(const struct frame *fr, const struct plot *p)
{
    char text[40];
    for (double t = fr->lo_y; t <= fr->hi_y * 1.001; t = tick_after(t)) {
        fprintf(fr->f, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", LEFT, at_y(fr, t), RIGHT);
        put_text(fr->f, LEFT - 8, at_y(fr, t) + 4, "text-anchor=\"end\" class=\"y\"",
                 figure(t, text));
    }
    for (int i = 0; i < p->len; i++) {
        double x = at_x(fr, p->point[i].x);
        if (seen_before(p, i))
            continue;
        fprintf(fr->f, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/>\n", x, TOP, BOTTOM);
        put_text(fr->f, x, BOTTOM + 18, "text-anchor=\"middle\" class=\"x\"",
                 figure(p->point[i].x, text));
    }
    fprintf(fr->f, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#444\"/>\n", LEFT, TOP,
            BOTTOM, RIGHT);
    put_text(fr->f, (LEFT + RIGHT) / 2, BOTTOM + 44, "text-anchor=\"middle\"", p->x_label);
    put_text(fr->f, -(TOP + BOTTOM) / 2, 34, "text-anchor=\"middle\" transform=\"rotate(-90)\"",
             p->y_label);
}

/* ---- series ---- */

/* The highest of an x has its figure above, the others below: they do not cover each other. */
static int is_highest(const struct plot *p, int i)
{
    for (int k = 0; k < p->len; k++)
        if (p->point[k].x == p->point[i].x && p->point[k].y > p->point[i].y)
            return 0;
    return 1;
}

static void draw_legend(FILE *f, int series, const char *colour, const char *name)
{
    double y = TOP + 10 + 22 * series;
    fprintf(f, "<path d=\"M%.1f %.1fh24\" stroke=\"%s\" stroke-width=\"2\"/>\n", RIGHT + 16, y,
            colour);
    put_text(f, RIGHT + 46, y + 4, "class=\"legend\"", name);
}

static void draw_points(const struct frame *fr, const struct plot *p)
{
    static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e"};
    int series = -1;
    for (int i = 0; i < p->len; i++) {
        const struct plot_point *q = &p->point[i], *before = q - 1;
        double x = at_x(fr, q->x), y = at_y(fr, q->y);
        char text[40];
        int first = i == 0 || strcmp(before->series, q->series) != 0;
        const char *colour = colours[(series += first) % 5];
        if (first)
            draw_legend(fr->f, series, colour, q->series);
        else
            fprintf(fr->f, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                    at_x(fr, before->x), at_y(fr, before->y), x, y, colour);
        fprintf(fr->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y, colour);
        put_text(fr->f, x, is_highest(p, i) ? y - 9 : y + 18,
                 "text-anchor=\"middle\" font-size=\"10\"", figure(q->y, text));
    }
}

void plot_write(const char *dir, const struct plot *p)
{
    if (p->len == 0)
        return;
    struct frame fr = {.f = report_create(dir, p->file)};
    find_ranges(&fr, p);
    fputs("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"460\" "
          "viewBox=\"0 0 800 460\" font-family=\"sans-serif\" font-size=\"12\">\n"
          "<rect width=\"800\" height=\"460\" fill=\"white\"/>\n",
          fr.f);
    put_text(fr.f, LEFT, 30, "font-size=\"15\"", p->title);
    draw_axes(&fr, p);
    draw_points(&fr, p);
    fputs("</svg>\n", fr.f);
    report_finish(fr.f, dir, p->file);
}
