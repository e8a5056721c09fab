/*
 * engine: what a vLLM server looks like from in front, cheap enough that the gateway is what is measured.
 *
 *   engine PORT:NAME [PORT:NAME ...]        one thread, one epoll, one pretended engine a port
 *
 *   POST .../chat/completions               whole, or streamed where the body says "stream": true
 *   POST /_set?first_us=&gap_us=&tokens=&reply=&step=     the pace of all engines from now on
 *   GET  /_count                            [{"name", "requests", "streams", "chunks", "abandoned"}] by port
 *   GET  anything with models, info, health, ...          what routers ask before they send traffic
 *
 * A stream has vLLM's shape: chunked, one event per HTTP chunk and per send(): the role, one content event a token, the
 * reason of the end, the usage if "include_usage": true was asked, [DONE]. The content of each token is "@" and 19
 * digits: CLOCK_MONOTONIC nanoseconds, read just before its send(). The reader subtracts it from its own clock, so the
 * way of each chunk through the gateway is measured by itself, whatever the pace.
 *
 *   gap_us > 0    a token each gap_us in each stream; step=1: on ticks common to all, as an engine's step releases them
 *   gap_us == 0   flat out: each turn of the loop sends one event to every stream whose socket takes it
 *
 * A whole answer comes after first_us + (tokens - 1) * gap_us; `reply` is the length of its body.
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
#define ENGINES 256
#define DATE "date: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
#define OPENING "data: {\"id\":\"%s\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\",\"choices\":"
#define TOKEN_END "\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n\r\n"
#define DIGITS 19

struct engine {
    int listener, port;
    char name[64];
    uint64_t requests, streams, chunks, abandoned;
};

enum state { IDLE, ANSWERING, STREAMING };

struct line { /* one connection */
    struct engine *engine;
    enum state state;
    int fd, gone, wants_room, wants_usage, opened;
    char *in, *out;             /* of a request that is not whole yet; of an answer that the socket did not take */
    size_t in_n, in_room, out_n, out_room;
    int left, total;            /* tokens */
    int64_t due;
    int in_heap, in_flat;       /* places there, or -1 */
    char id[48], token[320];    /* a content event up to its digits, the chunk's size included */
    int token_n;
    struct line *next;          /* among the dead */
};

static struct { int64_t first_us, gap_us, tokens, reply, step; } pace = {0, 0, 128, 600, 0};
static struct engine engines[ENGINES];
static int engines_n, poller;
static uint64_t serial;
static struct line **heap, **flat, *dead;
static int heap_n, heap_room, flat_n, flat_room;

static void die(const char *what) { perror(what); exit(1); }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void *grown(void *old, size_t bytes) {
    void *block = realloc(old, bytes);
    if (!block) die("realloc");
    return block;
}

/* Whose turn comes next: a heap by `due`, and the list of streams that run flat out. */

static void place(int at, struct line *l) { heap[at] = l; l->in_heap = at; }

static void rise(int at) {
    struct line *l = heap[at];
    for (; at && heap[(at - 1) / 2]->due > l->due; at = (at - 1) / 2) place(at, heap[(at - 1) / 2]);
    place(at, l);
}

static void sink(int at) {
    struct line *l = heap[at];
    for (int child; (child = 2 * at + 1) < heap_n; at = child) {
        if (child + 1 < heap_n && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= l->due) break;
        place(at, heap[child]);
    }
    place(at, l);
}

static void wake_at(struct line *l, int64_t due) {
    if (heap_n == heap_room) heap = grown(heap, (heap_room = heap_room * 2 + 64) * sizeof *heap);
    l->due = due;
    place(heap_n, l);
    rise(heap_n++);
}

static void forget_wake(struct line *l) {
    int at = l->in_heap;
    if (at < 0) return;
    l->in_heap = -1;
    struct line *last = heap[--heap_n];
    if (last == l) return;
    place(at, last);
    rise(at);
    sink(last->in_heap);
}

static void run_flat(struct line *l) {
    if (flat_n == flat_room) flat = grown(flat, (flat_room = flat_room * 2 + 64) * sizeof *flat);
    flat[l->in_flat = flat_n++] = l;
}

static void end_flat(struct line *l) {
    if (l->in_flat < 0) return;
    struct line *last = flat[--flat_n];
    flat[last->in_flat = l->in_flat] = last;
    l->in_flat = -1;
}

/* Writing. A line that is lost is freed at the end of the turn, when nobody holds it any more. */

static void lose(struct line *l) {
    if (l->gone) return;
    if (l->state != IDLE) l->engine->abandoned++;
    forget_wake(l);
    end_flat(l);
    close(l->fd);
    l->gone = 1;
    l->next = dead;
    dead = l;
}

static void want_room(struct line *l, int wanted) {
    if (l->wants_room == wanted) return;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = l};
    epoll_ctl(poller, EPOLL_CTL_MOD, l->fd, &e);
    l->wants_room = wanted;
}

static void put(struct line *l, const char *p, size_t n) {
    if (l->gone) return;
    if (!l->out_n) {
        ssize_t took = send(l->fd, p, n, MSG_NOSIGNAL);
        if (took < 0 && errno != EAGAIN) { lose(l); return; }
        if (took > 0) { p += took; n -= took; }
        if (!n) return;
    }
    if (l->out_n + n > l->out_room) l->out = grown(l->out, l->out_room = (l->out_n + n) * 2);
    memcpy(l->out + l->out_n, p, n);
    l->out_n += n;
    want_room(l, 1);
}

static void put_waiting(struct line *l) {
    ssize_t took = send(l->fd, l->out, l->out_n, MSG_NOSIGNAL);
    if (took < 0) { if (errno != EAGAIN) lose(l); return; }
    l->out_n -= took;
    memmove(l->out, l->out + took, l->out_n);
    if (!l->out_n) want_room(l, 0);
}

static void put_event(struct line *l, const char *event, int n) {
    char chunk[1024];
    int size = snprintf(chunk, sizeof chunk, "%x\r\n", n);
    memcpy(chunk + size, event, n);
    memcpy(chunk + size + n, "\r\n", 2);
    put(l, chunk, size + n + 2);
}

static void put_json(struct line *l, int status, const char *body, int n) {
    static char answer[(1 << 20) + 512];
    int head = snprintf(answer, 512, "HTTP/1.1 %d %s\r\n" DATE "content-length: %d\r\ncontent-type: application/json\r\n\r\n",
                        status, status == 200 ? "OK" : "Not Found", n);
    memcpy(answer + head, body, n);
    put(l, answer, head + n);
}

/* Chat completions. */

static void answer_whole(struct line *l) {
    static const char words[] = "The quick brown fox jumps over the lazy dog and then walks home in the rain. ";
    static const char end[] =
        "\",\"refusal\":null,\"tool_calls\":[],\"reasoning_content\":null},\"logprobs\":null,\"finish_reason\":\"stop\","
        "\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":256,\"total_tokens\":384,\"completion_tokens\":128,"
        "\"prompt_tokens_details\":null}}";
    static char body[1 << 20];
    int n = snprintf(body, 512, "{\"id\":\"%s\",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"m\","
                     "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"", l->id);
    int wanted = pace.reply < (int64_t)sizeof body - 1024 ? pace.reply : (int)sizeof body - 1024;
    for (int i = 0; n + (int)sizeof end - 1 < wanted; i++) body[n++] = words[i % (sizeof words - 1)];
    memcpy(body + n, end, sizeof end - 1);
    l->state = IDLE;
    put_json(l, 200, body, n + sizeof end - 1);
}

static void open_stream(struct line *l) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\n" DATE "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    char event[600];
    put(l, head, sizeof head - 1);
    put_event(l, event, snprintf(event, sizeof event, OPENING
        "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n", l->id));
    l->opened = 1;
}

static void put_token(struct line *l) {
    char chunk[640];
    memcpy(chunk, l->token, l->token_n);
    char *digits = chunk + l->token_n;
    memcpy(digits + DIGITS, TOKEN_END, sizeof TOKEN_END - 1);
    int64_t t = now();
    for (int i = DIGITS - 1; i >= 0; i--, t /= 10) digits[i] = '0' + t % 10;
    l->engine->chunks++;
    l->left--;
    put(l, chunk, l->token_n + DIGITS + sizeof TOKEN_END - 1);
}

static void end_stream(struct line *l) {
    char event[600];
    put_event(l, event, snprintf(event, sizeof event, OPENING
        "[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}]}\n\n", l->id));
    if (l->wants_usage)
        put_event(l, event, snprintf(event, sizeof event, OPENING
            "[],\"usage\":{\"prompt_tokens\":256,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n", l->id, 256 + l->total, l->total));
    put_event(l, "data: [DONE]\n\n", 14);
    put(l, "0\r\n\r\n", 5);
    end_flat(l);
    if (!l->gone) l->state = IDLE;
}

static void step(struct line *l) {
    if (!l->opened) open_stream(l);
    if (l->left > 0) put_token(l);
    if (l->left == 0 && !l->gone) end_stream(l);
}

static int64_t tick(int64_t t) {
    int64_t gap = pace.gap_us * 1000;
    return pace.step && gap ? (t / gap + 1) * gap : t;
}

static int says_true(const char *p, size_t n, const char *name) { /* "name" : true */
    const char *end = p + n;
    size_t length = strlen(name);
    while ((p = memmem(p, end - p, name, length))) {
        for (p += length; p < end && (*p == ' ' || *p == ':'); p++);
        if (end - p >= 4 && !memcmp(p, "true", 4)) return 1;
    }
    return 0;
}

static void complete(struct line *l, const char *body, size_t n) {
    l->engine->requests++;
    snprintf(l->id, sizeof l->id, "chatcmpl-%032llx", (unsigned long long)++serial);
    if (!says_true(body, n, "\"stream\"")) {
        int64_t wait = (pace.first_us + (pace.tokens - 1) * pace.gap_us) * 1000;
        l->state = ANSWERING;
        if (wait > 0) wake_at(l, now() + wait); else answer_whole(l);
        return;
    }
    char event[300];
    int n_event = snprintf(event, sizeof event, OPENING "[{\"index\":0,\"delta\":{\"content\":\"@", l->id);
    l->token_n = snprintf(l->token, sizeof l->token, "%x\r\n%s", (unsigned)(n_event + DIGITS + sizeof TOKEN_END - 3), event);
    l->engine->streams++;
    l->state = STREAMING;
    l->left = l->total = pace.tokens;
    l->opened = 0;
    l->wants_usage = says_true(body, n, "\"include_usage\"");
    if (pace.first_us || pace.gap_us) wake_at(l, tick(now() + pace.first_us * 1000)); else run_flat(l);
}

/* Everything else that is asked. */

static int64_t given(const char *query, const char *name, int64_t old) {
    const char *p = strstr(query, name);
    size_t n = strlen(name);
    return p && (p[-1] == '?' || p[-1] == '&') && p[n] == '=' ? atoll(p + n + 1) : old;
}

static void set_pace(struct line *l, const char *path) {
    pace.first_us = given(path, "first_us", pace.first_us);
    pace.gap_us = given(path, "gap_us", pace.gap_us);
    pace.tokens = given(path, "tokens", pace.tokens);
    pace.reply = given(path, "reply", pace.reply);
    pace.step = given(path, "step", pace.step);
    put_json(l, 200, "{}", 2);
}

static void count(struct line *l) {
    static char body[ENGINES * 256];
    int n = 0;
    for (struct engine *e = engines; e < engines + engines_n; e++)
        n += sprintf(body + n, "%c{\"name\":\"%s\",\"requests\":%lu,\"streams\":%lu,\"chunks\":%lu,\"abandoned\":%lu}",
                     e == engines ? '[' : ',', e->name, e->requests, e->streams, e->chunks, e->abandoned);
    body[n++] = ']';
    put_json(l, 200, body, n);
}

static void answer_other(struct line *l, const char *path) {
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1767225600,"
                                 "\"owned_by\":\"vllm\",\"root\":\"m\",\"parent\":null,\"max_model_len\":131072}]}";
    static const char info[] = "{\"model_path\":\"m\",\"served_model_name\":\"m\",\"model_id\":\"m\",\"tokenizer_path\":\"m\","
                               "\"is_generation\":true,\"dp_size\":1,\"version\":\"0\"}";
    static const char *quiet[] = {"health", "ping", "version", "metrics"};
    if (strstr(path, "/models")) { put_json(l, 200, models, sizeof models - 1); return; }
    if (strstr(path, "info")) { put_json(l, 200, info, sizeof info - 1); return; }
    for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++)
        if (strstr(path, quiet[i])) { put_json(l, 200, "{}", 2); return; }
    put_json(l, 404, "{\"error\":\"no such path\"}", 24);
}

static void answer(struct line *l, char *head, const char *body, size_t n) {
    char *path = strchr(head, ' '), *end = path ? strchr(path + 1, ' ') : NULL;
    if (!end) { lose(l); return; }
    *end = 0;
    path++;
    if (*head == 'P' && strstr(path, "/chat/completions")) complete(l, body, n);
    else if (!strncmp(path, "/_set", 5)) set_pace(l, path);
    else if (!strncmp(path, "/_count", 7)) count(l);
    else answer_other(l, path);
}

/* Reading. The head's end is overwritten by a zero while it is looked at. */

static size_t unchunked(char *body, size_t n, size_t *used) { /* in place; *used is 0 until the last chunk is here */
    char *p = body, *end = body + n, *eol;
    size_t kept = 0;
    *used = 0;
    while ((eol = memmem(p, end - p, "\r\n", 2))) { /* first a walk that changes nothing */
        size_t size = strtoul(p, NULL, 16);
        if ((size_t)(end - eol) < size + 4) return 0;
        p = eol + 2 + size + 2;
        if (!size) { *used = p - body; break; }
    }
    for (p = body; *used && p < body + *used;) {
        size_t size = strtoul(p, &eol, 16);
        eol = memmem(p, end - p, "\r\n", 2);
        memmove(body + kept, eol + 2, size);
        kept += size;
        p = eol + 2 + size + 2;
    }
    return kept;
}

static size_t take(struct line *l, char *p, size_t n) { /* one whole request; returns its length, 0 if more is needed */
    char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = end - p + 4, body = 0, used;
    int chunked = 0;
    *end = 0;
    for (char *field = strstr(p, "\r\n"); field; field = strstr(field, "\r\n")) {
        field += 2;
        if (!strncasecmp(field, "content-length:", 15)) body = strtoul(field + 15, NULL, 10);
        else if (!strncasecmp(field, "transfer-encoding:", 18)) chunked = 1;
    }
    *end = '\r';
    if (chunked) body = unchunked(p + head, n - head, &used);
    else used = n - head < body ? 0 : body;
    if (!used && (chunked || body)) return 0;
    *end = 0;
    answer(l, p, p + head, body);
    return head + used;
}

static size_t take_all(struct line *l, char *p, size_t n) {
    size_t used = 0, took;
    while (l->state == IDLE && !l->gone && used < n && (took = take(l, p + used, n - used))) used += took;
    return used;
}

static void keep(struct line *l, const char *p, size_t n) {
    if (l->in_n + n + 1 > l->in_room) l->in = grown(l->in, l->in_room = (l->in_n + n) * 2 + 1);
    memcpy(l->in + l->in_n, p, n);
    l->in_n += n;
}

static void take_kept(struct line *l) {
    size_t used = take_all(l, l->in, l->in_n);
    l->in_n -= used;
    memmove(l->in, l->in + used, l->in_n);
    if (!l->in_n) { free(l->in); l->in = NULL; l->in_room = 0; }
}

static void hear(struct line *l) {
    static char bytes[(1 << 18) + 1];
    for (;;) {
        ssize_t n = recv(l->fd, bytes, sizeof bytes - 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { lose(l); return; }
        if (n < 0) return;
        if (l->in_n) { keep(l, bytes, n); take_kept(l); }
        else { size_t used = take_all(l, bytes, n); if (used < (size_t)n && !l->gone) keep(l, bytes + used, n - used); }
        if (l->gone || n < (ssize_t)sizeof bytes - 1) return;
    }
}

/* The loop. */

static void listen_on(const char *spec) {
    struct engine *e = &engines[engines_n++];
    char *colon = strchr(spec, ':');
    int on = 1;
    if (engines_n == ENGINES || !colon) { fprintf(stderr, "engine: PORT:NAME wanted, not %s\n", spec); exit(2); }
    e->port = atoi(spec);
    snprintf(e->name, sizeof e->name, "%s", colon + 1);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if ((e->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) die("socket");
    setsockopt(e->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(e->listener, (void *)&a, sizeof a) || listen(e->listener, 4096)) die("bind");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = e};
    epoll_ctl(poller, EPOLL_CTL_ADD, e->listener, &event);
}

static void accept_all(struct engine *e) {
    int fd, on = 1;
    while ((fd = accept4(e->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct line *l = calloc(1, sizeof *l);
        if (!l) die("calloc");
        *l = (struct line){.engine = e, .fd = fd, .in_heap = -1, .in_flat = -1};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = l};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static int is_engine(const void *p) { return (const char *)p >= (char *)engines && (const char *)p < (char *)(engines + ENGINES); }

static void attend(struct epoll_event *event) {
    if (is_engine(event->data.ptr)) { accept_all(event->data.ptr); return; }
    struct line *l = event->data.ptr;
    if (event->events & EPOLLOUT && l->out_n) put_waiting(l);
    if (!l->gone && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) hear(l);
}

static void run_due(int64_t t) {
    while (heap_n && heap[0]->due <= t) {
        struct line *l = heap[0];
        int64_t due = l->due;
        forget_wake(l);
        if (l->state == ANSWERING) answer_whole(l); else step(l);
        if (!l->gone && l->state == STREAMING) { if (pace.gap_us) wake_at(l, due + pace.gap_us * 1000); else run_flat(l); }
        if (!l->gone && l->state == IDLE && l->in_n) take_kept(l);
    }
}

static int run_all_flat(void) { /* returns how many sockets took something */
    int moved = 0;
    for (int i = flat_n - 1; i >= 0; i--) {
        struct line *l = i < flat_n ? flat[i] : NULL;
        if (!l || l->out_n) continue; /* its socket is full */
        step(l);
        moved++;
        if (!l->gone && l->state == IDLE && l->in_n) take_kept(l);
    }
    return moved;
}

static void bury(void) {
    for (struct line *l = dead, *next; l; l = next) {
        next = l->next;
        free(l->in);
        free(l->out);
        free(l);
    }
    dead = NULL;
}

static struct timespec *patience(int moved, struct timespec *wait) {
    *wait = (struct timespec){0, 0};
    if (flat_n) { if (!moved) wait->tv_nsec = 2000000; return wait; } /* all are full: until one drains */
    if (!heap_n) return NULL;
    int64_t left = heap[0]->due - now();
    if (left > 0) *wait = (struct timespec){left / SECOND, left % SECOND};
    return wait;
}

int main(int argc, char **argv) {
    static struct epoll_event events[512];
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    poller = epoll_create1(0);
    for (int i = 1; i < argc; i++) listen_on(argv[i]);
    if (!engines_n) { fprintf(stderr, "engine: PORT:NAME [PORT:NAME ...] wanted\n"); return 2; }
    for (int moved = 1;;) {
        struct timespec wait;
        int n = epoll_pwait2(poller, events, 512, patience(moved, &wait), NULL);
        for (int i = 0; i < n; i++) attend(&events[i]);
        run_due(heap_n ? now() : 0);
        moved = run_all_flat();
        bury();
    }
}
