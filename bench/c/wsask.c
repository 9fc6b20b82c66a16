/* Asks objects and waits for their answers: connection i is to object i, keeps so many messages in flight, and gets each
 * message back. Every answer must be the next one expected; anything else ends the run.
 *
 * A message is its number in 16 digits and 'x' up to its size, so that no two of a connection are alike. */
#define _GNU_SOURCE
#include "common.h"
#include "histogram.h"
#include "watched.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { READ_BYTES = 1 << 18, EVENTS = 512, CONNECTING = 128, SIZE_MAX_BYTES = 1 << 16, DIGITS = 16 };
enum state { UPGRADING, OPEN };

static struct {
    int port, objects, window, core, watch_pid;
    size_t size;
    const char *path;
    double warmup_s, seconds, limit_s;
} options = {.path = "/object/", .size = 200, .window = 1, .objects = 1, .core = -1, .warmup_s = 0.5, .seconds = 3, .limit_s = 60};

static const char usage[] =
    "usage: wsask --port P [option]...\n"
    "  --path PREFIX     object i is at PREFIX followed by i (/object/)\n"
    "  --objects N       each with one connection (1)\n"
    "  --window W        messages in flight on each connection (1)\n"
    "  --size BYTES      of a message (200)\n"
    "  --warmup-s S --seconds S   what is not measured, then what is\n"
    "  --limit-s S       how long connecting and the first answers, and the last answers, may take (60)\n"
    "  --watch-pid PID   the server, for its CPU time\n"
    "  --core N          run on this core";

struct connection {
    int fd;
    enum state state;
    bool wants_out;
    int64_t asked, answered;
    int64_t *sent; /* when message n was sent, at n % window */
    struct bytes in, out;
};

static struct connection *connections;
static int poller, opened, connected;
static int64_t answers;          /* of all connections */
static int window;               /* in flight on each connection; 0: ask no more */
static int64_t record_from, record_to;
static struct histogram latency; /* of the answers that came in that interval */
static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0xe9};

static void watch(struct connection *connection, int operation, bool wants_out) {
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    connection->wants_out = wants_out;
}

static void flush(struct connection *connection) {
    struct bytes *out = &connection->out;
    while (out->size > 0) {
        ssize_t sent = send(connection->fd, out->data + out->head, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR) die("a connection ended: %s", strerror(errno));
            break;
        }
        bytes_drop(out, (size_t)sent);
    }
    if (connection->wants_out != (out->size > 0)) watch(connection, EPOLL_CTL_MOD, out->size > 0);
}

static void open_connection(struct connection *connection, int number) {
    char head[512];
    int on = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) die("cannot open another socket: %s (descriptor limit?)", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        die("cannot connect to port %d: %s", options.port, strerror(errno));
    int length = snprintf(head, sizeof head,
                          "GET %s%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          options.path, number, options.port);
    bytes_append(&connection->out, head, (size_t)length);
    watch(connection, EPOLL_CTL_ADD, true);
}

static void ask(struct connection *connection) {
    static uint8_t text[SIZE_MAX_BYTES];
    uint8_t header[FRAME_HEADER_BYTES];
    int64_t number = connection->asked++;
    snprintf((char *)text, sizeof text, "%0*lld", DIGITS, (long long)number);
    memset(text + DIGITS, 'x', options.size - DIGITS);
    for (size_t i = 0; i < options.size; i++) text[i] ^= mask[i & 3];
    bytes_append(&connection->out, header, frame_header(header, OPCODE_TEXT, options.size, mask));
    bytes_append(&connection->out, text, options.size);
    connection->sent[number % options.window] = now_ns();
}

static void on_answer(struct connection *connection, const struct frame *frame, int64_t now) {
    char digits[DIGITS + 1] = {0};
    if (frame->size == options.size) memcpy(digits, frame->payload, DIGITS);
    if (frame->size != options.size || strtoll(digits, NULL, 10) != connection->answered)
        die("expected answer %lld of %zu bytes, got %zu bytes: %.*s", (long long)connection->answered, options.size,
            frame->size, (int)(frame->size < 200 ? frame->size : 200), (char *)frame->payload);
    int64_t sent = connection->sent[connection->answered++ % options.window];
    answers++;
    if (now >= record_from && now < record_to) histogram_add(&latency, now - sent);
}

static void on_frames(struct connection *connection, int64_t now) {
    struct bytes *in = &connection->in;
    struct frame frame;
    size_t used, needed;
    while ((used = frame_parse(in->data + in->head, in->size, &frame, &needed)) > 0) {
        if (frame.opcode == OPCODE_CLOSE) die("the server closed a connection");
        if (frame.opcode == OPCODE_TEXT) {
            if (!frame.final) die("the server sent a message in fragments, which this client does not join");
            on_answer(connection, &frame, now);
        }
        bytes_drop(in, used);
    }
    while (connection->asked - connection->answered < window) ask(connection);
    flush(connection);
}

/* Takes the answer to the upgrade off the input; returns whether it was there. */
static bool on_upgrade(struct connection *connection) {
    struct bytes *in = &connection->in;
    const char *text = (const char *)in->data + in->head, *end = memmem(text, in->size, "\r\n\r\n", 4);
    if (end == NULL) return false;
    if (in->size < 12 || strncmp(text, "HTTP/1.1 101", 12))
        die("the server refused the upgrade: %.*s", (int)strcspn(text, "\r\n"), text);
    bytes_drop(in, (size_t)(end - text) + 4);
    connection->state = OPEN;
    connected++;
    return true;
}

static void on_readable(struct connection *connection) {
    static uint8_t buffer[READ_BYTES];
    ssize_t got = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got == 0) die("the server closed a connection");
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) die("a connection ended: %s", strerror(errno));
        return;
    }
    int64_t now = now_ns();
    bytes_append(&connection->in, buffer, (size_t)got);
    if (connection->state == OPEN || on_upgrade(connection)) on_frames(connection, now);
}

static void turn(void) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poller, events, EVENTS, 10);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) flush(connection);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(connection);
    }
}

static void check_time(int64_t deadline, const char *what) {
    if (now_ns() > deadline) die("%s took longer than %g s", what, options.limit_s);
}

static int64_t in_flight(void) {
    int64_t count = 0;
    for (int i = 0; i < options.objects; i++) count += connections[i].asked - connections[i].answered;
    return count;
}

static void ask_all(void) {
    for (int i = 0; i < options.objects; i++) {
        while (connections[i].asked - connections[i].answered < window) ask(&connections[i]);
        flush(&connections[i]);
    }
}

static void connect_all(void) {
    int64_t deadline = now_ns() + (int64_t)(options.limit_s * 1e9);
    connections = checked(calloc((size_t)options.objects, sizeof *connections));
    for (int i = 0; i < options.objects; i++)
        connections[i].sent = checked(calloc((size_t)options.window, sizeof *connections[i].sent));
    while (connected < options.objects) {
        while (opened < options.objects && opened - connected < CONNECTING) {
            open_connection(&connections[opened], opened);
            opened++;
        }
        turn();
        check_time(deadline, "connecting");
    }
}

/* One message to each object, which constructs most of them: the first write of an object costs more than later ones. */
static double first_answers_s(void) {
    int64_t begin = now_ns(), deadline = begin + (int64_t)(options.limit_s * 1e9);
    window = 1;
    ask_all();
    window = 0;
    while (answers < options.objects) {
        turn();
        check_time(deadline, "the first answers");
    }
    return (double)(now_ns() - begin) / 1e9;
}

static void measure(void) {
    record_from = now_ns() + (int64_t)(options.warmup_s * 1e9);
    record_to = record_from + (int64_t)(options.seconds * 1e9);
    window = options.window;
    ask_all();
    while (now_ns() < record_from) turn();
    int64_t before = answers, begin = now_ns(), now;
    double server = watched_cpu_s(options.watch_pid), client = own_cpu_s();
    while ((now = now_ns()) < record_to) turn();
    int64_t counted = answers - before;
    double elapsed = (double)(now - begin) / 1e9;
    server = watched_cpu_s(options.watch_pid) - server;
    client = own_cpu_s() - client;
    window = 0;
    int64_t deadline = now + (int64_t)(options.limit_s * 1e9);
    while (in_flight() > 0) {
        turn();
        check_time(deadline, "the last answers");
    }
    printf("\"seconds\":%.4f,\"answers\":%lld,\"answers_per_s\":%.1f,\"server_cpu_s\":%.3f,\"client_cpu_s\":%.3f,", elapsed,
           (long long)counted, (double)counted / elapsed, server, client);
    histogram_print("latency_ms", &latency);
}

static double number(const char *text, const char *name, double least) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= least && value < 1e8)) die("--%s: '%s' is not a number from %g", name, text, least);
    return value;
}

static void options_read(int count, char **arguments) {
    enum { PORT = 256, PATH, OBJECTS, WINDOW, SIZE, WARMUP_S, SECONDS, LIMIT_S, WATCH_PID, CORE };
    static const struct option names[] = {
        {"port", 1, 0, PORT}, {"path", 1, 0, PATH}, {"objects", 1, 0, OBJECTS}, {"window", 1, 0, WINDOW},
        {"size", 1, 0, SIZE}, {"warmup-s", 1, 0, WARMUP_S}, {"seconds", 1, 0, SECONDS}, {"limit-s", 1, 0, LIMIT_S},
        {"watch-pid", 1, 0, WATCH_PID}, {"core", 1, 0, CORE}, {0, 0, 0, 0},
    };
    int name, index = 0;
    while ((name = getopt_long(count, arguments, "", names, &index)) != -1) {
        const char *label = names[index].name;
        switch (name) {
        case PORT: options.port = (int)number(optarg, label, 1); break;
        case PATH: options.path = optarg; break;
        case OBJECTS: options.objects = (int)number(optarg, label, 1); break;
        case WINDOW: options.window = (int)number(optarg, label, 1); break;
        case SIZE: options.size = (size_t)number(optarg, label, DIGITS); break;
        case WARMUP_S: options.warmup_s = number(optarg, label, 0); break;
        case SECONDS: options.seconds = number(optarg, label, 0.01); break;
        case LIMIT_S: options.limit_s = number(optarg, label, 1); break;
        case WATCH_PID: options.watch_pid = (int)number(optarg, label, 1); break;
        case CORE: options.core = (int)number(optarg, label, 0); break;
        default: die("%s", usage);
        }
    }
    if (optind != count || options.port == 0) die("%s", usage);
    if (options.size >= SIZE_MAX_BYTES) die("--size: at most %d bytes", SIZE_MAX_BYTES - 1);
}

int main(int count, char **arguments) {
    options_read(count, arguments);
    run_on_core(options.core);
    raise_descriptor_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    connect_all();
    printf("{\"objects\":%d,\"first_answers_s\":%.4f,", options.objects, first_answers_s());
    measure();
    printf("}\n");
    return 0;
}
