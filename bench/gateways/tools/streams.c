/*
 * streams: keeps N streamed chat completions open and times each chunk on its way.
 *
 *   streams --port P --path /v1/chat/completions --body FILE --lines N --seconds S --tokens T
 *           [--ramp-ms R] [--warm-ms W] [--grace S] [--header "name: value"]...
 *
 * A closed loop: where a stream ends, the next begins on the same connection, for S seconds; then the open ones may end
 * within the grace. Beginnings are spread evenly over R ms, so that paced streams do not tick together; samples of the
 * first W ms are thrown away. Eight zeros behind "user-" in the body become the number of the request: a user each.
 * Content events carry "@" and 19 digits, the CLOCK_MONOTONIC nanoseconds of the engine's send(). Prints one object:
 *   first_us {p50, ...}   request sent to first content read        way_us {...}   engine's send() to read, each chunk
 *   gap_us {...}          growth of a stream's way, chunk by chunk  whole_us {...} request sent to [DONE]
 *   streams, chunks       whole streams and content chunks          most_open      streams open at once, at most
 *   errors, short         failed; ended without all T chunks and [DONE]
 * Percentiles are exact: every sample is kept.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define DIGITS 19
#define USER "user-00000000"

enum phase { HEAD, SIZE, DATA, DATA_END, TRAILER, TO_LENGTH };

struct stream {
    enum phase phase;
    int fd, open, closes, done, status, chunks;
    int text_n, event_n;          /* bytes of the lines below that have come */
    int64_t left;                 /* of the chunk or the body; -1: until the connection ends, -2: chunked */
    int64_t begin_at, sent, way;  /* begin_at 0: not to begin */
    char text[1024], event[1024]; /* a line of HTTP, and of SSE, that is not whole yet */
};

struct samples { int64_t *values; size_t n, room; };

static struct {
    int port, lines, tokens;
    double seconds, ramp_ms, warm_ms, grace;
    const char *path, *body;
    char headers[16384];
} told = {.lines = 1, .tokens = 128, .seconds = 5, .grace = 20, .path = "/v1/chat/completions"};

static struct samples first, way, gap, whole;
static uint64_t streams_n, chunks_n, errors_n, short_n, number;
static int64_t end_at, warm_at;
static int poller, open_n, most_open;
static char *request, *user;
static size_t request_n;

static void die(const char *what) { perror(what); exit(1); }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void add(struct samples *s, int64_t value) {
    if (s->n == s->room && !(s->values = realloc(s->values, (s->room = s->room * 2 + 4096) * sizeof value))) die("realloc");
    s->values[s->n++] = value;
}

static int order(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double at(const struct samples *s, double share) {
    size_t i = share * s->n;
    return s->n ? s->values[i < s->n ? i : s->n - 1] / 1000.0 : 0;
}

static void show(const char *name, struct samples *s) {
    qsort(s->values, s->n, sizeof *s->values, order);
    printf("\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},", name, s->n, at(s, .5), at(s, .9),
           at(s, .99), at(s, .999), at(s, 1));
}

/* A stream's life. */

static void hang_up(struct stream *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static int dial(struct stream *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(told.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (void *)&a, sizeof a)) { hang_up(s); return 0; }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event);
    return 1;
}

static void fail(struct stream *s, int64_t t) { /* and try again a little later */
    errors_n++;
    hang_up(s);
    s->begin_at = t + SECOND / 50;
}

static void begin(struct stream *s, int64_t t) {
    char digits[9];
    if (s->fd < 0 && !dial(s)) { fail(s, t); return; }
    if (user) memcpy(user, (snprintf(digits, sizeof digits, "%08u", (unsigned)(number++ % 100000000)), digits), 8);
    s->phase = HEAD;
    s->text_n = s->event_n = s->done = s->chunks = s->closes = s->status = 0;
    s->left = -1;
    s->begin_at = 0;
    s->sent = now();
    if (send(s->fd, request, request_n, MSG_NOSIGNAL) != (ssize_t)request_n) { fail(s, t); return; }
    s->open = 1;
    if (++open_n > most_open) most_open = open_n;
}

static void finish(struct stream *s, int64_t t) {
    int well = s->status == 200 && s->done && s->chunks == told.tokens;
    s->open = 0;
    open_n--;
    if (s->closes) hang_up(s);
    if (well) streams_n++;
    else if (s->status != 200) errors_n++;
    else short_n++;
    if (t >= end_at) return;
    if (well) begin(s, t); else s->begin_at = t + SECOND / 50;
}

/* What comes back. */

static void take_event_line(struct stream *s, char *p, int n, int64_t t) {
    if (n < 6 || memcmp(p, "data:", 5)) return;
    if (memmem(p, n, "[DONE]", 6)) { s->done = 1; if (t >= warm_at) add(&whole, t - s->sent); return; }
    char *stamp = memchr(p, '@', n);
    if (!stamp || p + n - stamp <= DIGITS) return;
    int64_t sent = 0;
    for (int i = 1; i <= DIGITS; i++) sent = sent * 10 + stamp[i] - '0';
    int64_t took = t - sent;
    chunks_n++;
    if (t >= warm_at) {
        add(&way, took);
        if (s->chunks) add(&gap, llabs(took - s->way)); else add(&first, t - s->sent);
    }
    s->way = took;
    s->chunks++;
}

static void take_events(struct stream *s, char *p, int n, int64_t t) {
    while (n) {
        char *eol = memchr(p, '\n', n);
        int k = eol ? eol - p + 1 : n;
        if (eol && !s->event_n) take_event_line(s, p, k, t); /* the whole line is here: no copy */
        else {
            int room = (int)sizeof s->event - s->event_n, kept = k < room ? k : room;
            memcpy(s->event + s->event_n, p, kept);
            s->event_n += kept;
            if (eol) { take_event_line(s, s->event, s->event_n, t); s->event_n = 0; }
        }
        p += k;
        n -= k;
    }
}

static int take_http_line(struct stream *s) { /* 1 when the answer is over */
    int blank = s->text[0] == '\r' || s->text[0] == '\n';
    switch (s->phase) {
    case DATA_END: s->phase = SIZE; return 0;
    case SIZE: s->left = strtol(s->text, NULL, 16); s->phase = s->left ? DATA : TRAILER; return 0;
    case TRAILER: return blank;
    default: break;
    }
    if (!s->status) { s->status = strlen(s->text) > 9 ? atoi(s->text + 9) : -1; return 0; }
    if (!strncasecmp(s->text, "transfer-encoding:", 18)) s->left = -2;
    else if (!strncasecmp(s->text, "content-length:", 15)) s->left = strtol(s->text + 15, NULL, 10);
    else if (!strncasecmp(s->text, "connection: close", 17)) s->closes = 1;
    if (!blank) return 0;
    s->phase = s->left == -2 ? SIZE : TO_LENGTH;
    if (s->left == -1) s->closes = 1;
    return s->left == 0;
}

static int take(struct stream *s, char *p, int n, int64_t t) { /* 1 when the answer is over */
    while (n) {
        if (s->phase == DATA || s->phase == TO_LENGTH) {
            int k = s->left >= 0 && s->left < n ? (int)s->left : n;
            take_events(s, p, k, t);
            p += k;
            n -= k;
            if (s->left > 0) s->left -= k;
            if (s->left == 0 && s->phase == TO_LENGTH) return 1;
            if (s->left == 0) s->phase = DATA_END;
            continue;
        }
        char *eol = memchr(p, '\n', n);
        int k = eol ? eol - p + 1 : n, room = (int)sizeof s->text - 1 - s->text_n, kept = k < room ? k : room;
        memcpy(s->text + s->text_n, p, kept);
        s->text_n += kept;
        p += k;
        n -= k;
        if (!eol) return 0;
        s->text[s->text_n] = 0;
        s->text_n = 0;
        if (take_http_line(s)) return 1;
    }
    return 0;
}

static void attend(struct stream *s) {
    static char bytes[1 << 18];
    if (s->fd < 0) return;
    ssize_t n = recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    int64_t t = now();
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { if (s->open) { s->closes = 1; finish(s, t); } else hang_up(s); return; }
    if (s->open && take(s, bytes, n, t)) finish(s, t);
}

/* The loop. */

static int64_t begin_due(struct stream *all, int64_t t) { /* returns when to look again */
    int64_t next = t + SECOND / 10;
    for (struct stream *s = all; s < all + told.lines; s++) {
        if (s->begin_at && t >= s->begin_at && t < end_at) begin(s, t);
        if (s->begin_at && s->begin_at < next) next = s->begin_at;
    }
    return next;
}

static void run(struct stream *all) {
    static struct epoll_event events[512];
    for (int64_t t = now(); t < end_at || open_n; t = now()) {
        int64_t wait = begin_due(all, t) - t;
        if (t >= end_at + told.grace * SECOND) { short_n += open_n; return; }
        struct timespec first_wait = {wait > 0 ? wait / SECOND : 0, wait > 0 ? wait % SECOND : 0}, none = {0, 0};
        for (int turn = 0; turn < 64; turn++) { /* many batches between two looks at all streams */
            int n = epoll_pwait2(poller, events, 512, turn ? &none : &first_wait, NULL);
            if (n <= 0) break;
            for (int i = 0; i < n; i++) attend(events[i].data.ptr);
        }
    }
}

static void read_told(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port")) told.port = atoi(value);
        else if (!strcmp(name, "--path")) told.path = value;
        else if (!strcmp(name, "--body")) told.body = value;
        else if (!strcmp(name, "--lines")) told.lines = atoi(value);
        else if (!strcmp(name, "--tokens")) told.tokens = atoi(value);
        else if (!strcmp(name, "--seconds")) told.seconds = atof(value);
        else if (!strcmp(name, "--ramp-ms")) told.ramp_ms = atof(value);
        else if (!strcmp(name, "--warm-ms")) told.warm_ms = atof(value);
        else if (!strcmp(name, "--grace")) told.grace = atof(value);
        else if (!strcmp(name, "--header") && strlen(told.headers) + strlen(value) + 3 < sizeof told.headers)
            strcat(strcat(told.headers, value), "\r\n");
        else { fprintf(stderr, "streams: unknown option %s\n", name); exit(2); }
    }
    if (!told.port || !told.body) { fprintf(stderr, "streams: --port and --body are needed\n"); exit(2); }
}

static void write_request(void) {
    static char body[1 << 22];
    FILE *file = fopen(told.body, "rb");
    if (!file) die(told.body);
    size_t n = fread(body, 1, sizeof body, file);
    fclose(file);
    if (!(request = malloc(n + sizeof told.headers + 1024))) die("malloc");
    int head = sprintf(request, "POST %.512s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                       "accept: text/event-stream\r\nuser-agent: bench\r\n%scontent-length: %zu\r\n\r\n",
                       told.path, told.port, told.headers, n);
    memcpy(request + head, body, n);
    request_n = head + n;
    char *found = memmem(request + head, n, USER, sizeof USER - 1);
    user = found ? found + 5 : NULL;
}

int main(int argc, char **argv) {
    read_told(argc, argv);
    write_request();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    poller = epoll_create1(0);
    struct stream *all = calloc(told.lines, sizeof *all);
    if (!all) die("calloc");
    int64_t begun = now();
    end_at = begun + told.seconds * SECOND;
    warm_at = begun + told.warm_ms * 1e6;
    for (int i = 0; i < told.lines; i++) { all[i].fd = -1; all[i].begin_at = begun + told.ramp_ms * 1e6 * i / told.lines + 1; }
    run(all);
    double took = (now() - begun) / 1e9;
    printf("{");
    show("first_us", &first);
    show("way_us", &way);
    show("gap_us", &gap);
    show("whole_us", &whole);
    printf("\"streams\":%lu,\"chunks\":%lu,\"most_open\":%d,\"errors\":%lu,\"short\":%lu,\"seconds\":%.3f}\n", streams_n, chunks_n, most_open,
           errors_n, short_n, took);
    return 0;
}
