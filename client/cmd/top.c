/*
 * top.c - azoth top: the terminal.
 *
 * The screen is ncurses'. The terminal is put back on every way out: on q and on signals that ask for an
 * end, by endwin(); on those that tell of a bug, by a handler that writes what was prepared for it, since
 * curses must not be called there.
 */
#include "client/cmd/top.h"

#include "core/clock.h"

#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define INTERVAL_LEAST_MS 100u
#define INTERVAL_MOST_MS  60000u

/* ---- putting the terminal back ---- */

static struct termios terminal;
static char goodbye[256];

static void on_crash(int signo)
{
    (void)!write(STDOUT_FILENO, goodbye, strlen(goodbye));
    tcsetattr(STDOUT_FILENO, TCSANOW, &terminal);
    signal(signo, SIG_DFL);
    raise(signo);
}

static void add_string(const char *name)
{
    const char *text = tigetstr(name);
    if (text && text != (char *)-1)
        snprintf(goodbye + strlen(goodbye), sizeof goodbye - strlen(goodbye), "%s", text);
}

/* After initscr(), which has read what the terminal wants to be told. */
static void prepare_for_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT};
    add_string("sgr0");
    add_string("cnorm");
    add_string("rmcup");
    struct sigaction sa = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &sa, NULL);
}

/* ---- the screen ---- */

/* NO_COLOR: see no-color.org. */
static int has_color(void)
{
    const char *no = getenv("NO_COLOR");
    return has_colors() && !(no && *no);
}

/* A terminal that cannot put its cursor anywhere (TERM=dumb) would be filled with rubbish. */
static int screen_fits(void)
{
    if (!newterm(NULL, stdout, stdin))
        return 0;
    const char *place = tigetstr("cup");
    if (place && place != (char *)-1)
        return 1;
    endwin();
    return 0;
}

static int screen_open(void)
{
    const char *term = getenv("TERM");
    tcgetattr(STDOUT_FILENO, &terminal);
    if (!screen_fits())
        return cmd_fail_code(AZOTH_ERR_USAGE,
                             "top: the terminal %s has no screen to write to, or is not known; "
                             "--once prints a frame",
                             term ? term : "(TERM is not set)");
    prepare_for_crashes();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    if (has_color()) {
        start_color();
        use_default_colors();
        init_pair(1, COLOR_RED, -1);
        init_pair(2, COLOR_CYAN, -1);
    }
    return 0;
}

/* Bold, underlined and reversed tell the same without colours. */
static attr_t look_of(enum top_mark mark)
{
    switch (mark) {
    case TOP_TITLE:
        return A_REVERSE;
    case TOP_HEADING:
        return A_BOLD | (has_color() ? (attr_t)COLOR_PAIR(2) : 0);
    case TOP_ALARM:
        return A_BOLD | (has_color() ? (attr_t)COLOR_PAIR(1) : 0);
    default:
        return A_NORMAL;
    }
}

static void show(const struct top_frame *f)
{
    erase();
    for (uint32_t i = 0; i < f->lines && (int)i < LINES; i++) {
        attrset((int)look_of(f->line[i].mark));
        mvaddstr((int)i, 0, f->line[i].text);
    }
    attrset(A_NORMAL);
    refresh();
}

/* ---- keys ---- */

struct session {
    struct top_options o;
    int help, quit;
};

static void sort_by(struct top_options *o, enum top_sort s)
{
    o->sort = s;
    o->reverse = 0;
}

static void faster(struct top_options *o, int slower)
{
    uint32_t n = slower ? o->interval_ms * 2 : o->interval_ms / 2;
    o->interval_ms = n < INTERVAL_LEAST_MS  ? INTERVAL_LEAST_MS
                     : n > INTERVAL_MOST_MS ? INTERVAL_MOST_MS
                                            : n;
}

static void on_key(struct session *s, int key)
{
    struct top_options *o = &s->o;
    if (s->help) {
        s->help = 0;
        s->quit = key == 'q';
        return;
    }
    switch (key) {
    case 'q':
        s->quit = 1;
        break;
    case 'p':
    case ' ':
        o->paused = !o->paused;
        break;
    case 's':
        sort_by(o, (enum top_sort)((o->sort + 1) % TOP_SORTS));
        break;
    case 'n':
        sort_by(o, TOP_BY_NAME);
        break;
    case 'l':
        sort_by(o, TOP_BY_LAG);
        break;
    case 'b':
        sort_by(o, TOP_BY_RATE);
        break;
    case 'w':
        sort_by(o, TOP_BY_WAITS);
        break;
    case 'r':
        o->reverse = !o->reverse;
        break;
    case '+':
    case '-':
        faster(o, key == '+');
        break;
    case 'h':
    case '?':
        s->help = 1;
        break;
    default:
        break;
    }
}

/* ---- the loop ---- */

/* A frame of the last look; what it looked at may be gone, so counters are the frame's own. */
static void draw(struct top *t, struct session *s)
{
    static struct top_frame frame;
    s->o.width = COLS > 0 ? (uint32_t)COLS : 80;
    s->o.height = LINES > 1 ? (uint32_t)LINES : 2;
    if (s->help)
        top_render_help(&s->o, &frame);
    else
        top_render(t, &s->o, &frame);
    show(&frame);
}

static void run_screen(struct top *t, struct session *s)
{
    uint64_t due_ns = 0;
    while (!s->quit && !cmd_interrupted()) {
        uint64_t now_ns = clock_mono_ns();
        if (now_ns >= due_ns && !s->o.paused) {
            if (due_ns)
                top_unlook(t);
            top_look(t);
            due_ns = clock_mono_ns() + s->o.interval_ms * NS_PER_MS;
        }
        draw(t, s);
        now_ns = clock_mono_ns();
        uint64_t wait_ms = due_ns > now_ns ? (due_ns - now_ns) / NS_PER_MS + 1 : 0;
        timeout(s->o.paused || wait_ms > 1000 ? 1000 : (int)wait_ms);
        int key = getch();
        if (key != ERR)
            on_key(s, key);
    }
    if (due_ns)
        top_unlook(t);
}

/* One frame as text. Two looks: rates are between them. */
static int once(struct top *t, struct top_options *o)
{
    static struct top_frame frame;
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
    o->width = n >= 40 && n <= 240 ? (uint32_t)n : 80;
    cmd_catch_signals();
    top_look(t);
    top_unlook(t);
    cmd_sleep_ms(o->interval_ms);
    if (cmd_interrupted())
        return 0;
    top_look(t);
    top_render(t, o, &frame);
    top_unlook(t);
    for (uint32_t i = 0; i < frame.lines; i++) {
        char *text = frame.line[i].text;
        size_t len = strlen(text);
        while (len && text[len - 1] == ' ')
            text[--len] = 0;
        puts(text);
    }
    return 0;
}

static int run_top(struct cmd_line *l)
{
    static struct top t;
    static struct session s = {.o = {.interval_ms = 1000, .sort = TOP_BY_NAME}};
    struct azoth_error err;
    struct cmd_number interval = {0};
    int one = 0;
    const struct cmd_flag flags[] = {
        {"--once", FLAG_SWITCH, &one}, {"--interval", FLAG_SECONDS, &interval}, {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0);
    if (rc)
        return rc;
    if (l->json)
        return cmd_usage(l, "it has no JSON; azoth status --json and azoth lag --json have");
    if (interval.given && (interval.n < INTERVAL_LEAST_MS || interval.n > INTERVAL_MOST_MS))
        return cmd_usage(l, "--interval is from 100ms to 1min");
    if (interval.given)
        s.o.interval_ms = (uint32_t)interval.n;
    rc = cmd_dir(l, NULL, 1, t.lag.dir, sizeof t.lag.dir);
    if (rc)
        return rc;
    if (config_load(&t.lag.config, t.lag.dir, &err))
        return cmd_fail(&err);
    setlocale(LC_CTYPE, "");
    s.o.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    if (one)
        return once(&t, &s.o);
    if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
        return cmd_usage(l, "it needs a terminal; --once prints one frame");
    cmd_catch_signals();
    rc = screen_open();
    if (rc)
        return rc;
    run_screen(&t, &s);
    endwin();
    return 0;
}

const struct cmd cmd_top = {
    .name = "top",
    .synopsis = "[--interval TIME] [--once]",
    .summary = "The whole system at a glance, on the whole screen",
    .help = "  --interval TIME  between two looks: 100ms to 1min; default 1 s\n"
            "  --once           print one frame as text, of two looks, and end\n\n"
            "Throughput, latencies, queue, the lag of each projection, what each process does and "
            "waits\n"
            "for, and culprits. Keys: q quit, p pause, s sort, r reverse, + - slower and faster, h "
            "help.\n"
            "Percentiles are of what came since the last look. Without colours (NO_COLOR, or a "
            "terminal\n"
            "without) alarms are bold. Reads shared memory and asks nobody.\n\n"
            "  azoth top\n"
            "  azoth top --once --interval 5 > now.txt\n",
    .run = run_top,
};
