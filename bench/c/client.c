/* The WebSocket client: many nonblocking connections, their handshakes, their frames. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

enum { READ_BYTES = 1 << 22, ONE_READ = 1 << 18, EVENTS = 512 };

struct connection *connections;
bool polling;
int poller, live_count, upgraded_count, dead_count;
int64_t answers;
static int timer = -1;
static int64_t timer_set;
static uint8_t *buffer; /* one for all: a connection keeps only the start of an incomplete frame */
static const uint8_t mask[4] = {0x5a, 0xc3, 0x17, 0xe9};

static void watch(struct connection *connection, int operation, bool wants_out) {
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    connection->wants_out = wants_out;
}

static void lost(struct connection *connection, const char *why) {
    if (connection->state == DEAD) return;
    if (connection->publisher) die("the publisher's connection ended: %s", why);
    if (connection->state != LIVE) die("a connection ended before it was live: %s", why);
    if (!connection->stuck) account_leave(connection);
    connection->state = DEAD;
    close(connection->fd);
    bytes_free(&connection->in);
    bytes_free(&connection->out);
    live_count--;
    dead_count++;
}

void client_flush(struct connection *connection) {
    struct bytes *out = &connection->out;
    while (out->size > 0) {
        ssize_t sent = send(connection->fd, out->data + out->head, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                lost(connection, strerror(errno));
                return;
            }
            break;
        }
        bytes_drop(out, (size_t)sent);
    }
    if (connection->wants_out != (out->size > 0)) watch(connection, EPOLL_CTL_MOD, out->size > 0);
}

static void append_frame(struct connection *connection, uint8_t opcode, const void *payload, size_t size) {
    uint8_t header[FRAME_HEADER_BYTES];
    bytes_append(&connection->out, header, frame_header(header, opcode, size, mask));
    bytes_append(&connection->out, payload, size);
    uint8_t *masked = connection->out.data + connection->out.head + connection->out.size - size;
    for (size_t i = 0; i < size; i++) masked[i] ^= mask[i & 3];
}

/* Queues one text message; client_flush sends it. */
void client_send(struct connection *connection, const char *text, size_t size) {
    append_frame(connection, OPCODE_TEXT, text, size);
}

static void on_live(struct connection *connection) {
    connection->state = LIVE;
    if (connection->publisher) return;
    live_count++;
    if (connection->stuck) {
        epoll_ctl(poller, EPOLL_CTL_DEL, connection->fd, NULL);
    } else {
        account_join(connection);
    }
}

static void on_upgraded(struct connection *connection) {
    const char *hello = connection->publisher ? options.publish_hello : NULL;
    if (!connection->publisher) {
        upgraded_count++;
        if (options.hello_count) hello = options.hello[connection->variant];
    }
    connection->state = GREETING;
    if (hello) {
        client_send(connection, hello, strlen(hello));
        client_flush(connection);
    }
    if (connection->publisher ? hello == NULL : options.live_marker == NULL) on_live(connection);
}

static int64_t digits(const char **at, const char *end) {
    int64_t value = 0;
    while (*at < end && **at == ' ') (*at)++;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) value = value * 10 + (**at - '0');
    return value;
}

/* Finds every "p":<ns>,"n":<number> of a payload, however many signals it carries. */
static void find_signals(struct connection *connection, const char *text, size_t size, int64_t now) {
    const char *end = text + size;
    for (const char *at = text; (at = memchr(at, 'p', (size_t)(end - at))) != NULL;) {
        if (at == text || at[-1] != '"' || end - at < 4 || at[1] != '"' || at[2] != ':') {
            at++;
            continue;
        }
        at += 3;
        int64_t sent = digits(&at, end);
        size_t near = (size_t)(end - at) < 32 ? (size_t)(end - at) : 32;
        const char *number = memmem(at, near, "\"n\":", 4);
        if (number == NULL) continue;
        at = number + 4;
        account_signal(connection, sent, digits(&at, end), now);
    }
}

static bool contains(const struct frame *frame, const char *marker) {
    return marker != NULL && memmem(frame->payload, frame->size, marker, strlen(marker)) != NULL;
}

static void count_answers(const struct frame *frame) {
    const char *at = (const char *)frame->payload, *end = at + frame->size;
    size_t length = strlen(options.answer_marker);
    for (; (at = memmem(at, (size_t)(end - at), options.answer_marker, length)) != NULL; at += length) answers++;
}

static void on_frame(struct connection *connection, const struct frame *frame, int64_t now) {
    switch (frame->opcode) {
    case OPCODE_CONTINUATION:
        die("the server sent a message in fragments, which this client does not join");
    case OPCODE_TEXT:
    case OPCODE_BINARY:
        if (!frame->final) die("the server sent a message in fragments, which this client does not join");
        if ((connection->publisher || connection->state == GREETING) && contains(frame, options.error_marker))
            die("the server answered: %.*s", (int)(frame->size < 500 ? frame->size : 500), (char *)frame->payload);
        if (connection->state == GREETING && (connection->publisher || contains(frame, options.live_marker)))
            on_live(connection);
        if (connection->publisher && options.answer_marker) count_answers(frame);
        if (connection->state == LIVE && !connection->publisher && !connection->stuck)
            find_signals(connection, (const char *)frame->payload, frame->size, now);
        break;
    case OPCODE_PING:
        append_frame(connection, OPCODE_PONG, frame->payload, frame->size);
        client_flush(connection);
        break;
    case OPCODE_CLOSE: {
        char why[160] = "closed by the server without a code";
        connection->close_code = frame->size >= 2 ? frame->payload[0] << 8 | frame->payload[1] : 1005;
        if (frame->size >= 2)
            snprintf(why, sizeof why, "closed by the server with %d %.*s", connection->close_code,
                     (int)frame->size - 2, (char *)frame->payload + 2);
        lost(connection, why);
        break;
    }
    default:
        break;
    }
}

/* Returns the bytes of the answer to the upgrade, 0 while it is incomplete. */
static size_t on_answer(struct connection *connection, const char *text, size_t size) {
    const char *end = memmem(text, size, "\r\n\r\n", 4);
    if (end == NULL) {
        if (size > 16384) die("the answer to the upgrade has no end");
        return 0;
    }
    if (size < 12 || strncmp(text, "HTTP/1.1 101", 12))
        die("the server refused the upgrade: %.*s", (int)strcspn(text, "\r\n"), text);
    on_upgraded(connection);
    return (size_t)(end - text) + 4;
}

static void on_readable(struct connection *connection) {
    size_t have = connection->in.size;
    if (have > 0) {
        memcpy(buffer, connection->in.data + connection->in.head, have);
        bytes_drop(&connection->in, have);
    }
    size_t room = READ_BYTES - have < ONE_READ ? READ_BYTES - have : ONE_READ;
    ssize_t got = recv(connection->fd, buffer + have, room, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            lost(connection, got == 0 ? "the server closed it" : strerror(errno));
        } else if (have > 0) {
            bytes_append(&connection->in, buffer, have);
        }
        return;
    }
    int64_t now = now_ns();
    connection->bytes += (uint64_t)got;
    size_t at = 0, size = have + (size_t)got;
    if (connection->state == UPGRADING) at = on_answer(connection, (char *)buffer, size);
    if (connection->state != UPGRADING) {
        struct frame frame;
        size_t used, needed;
        while (connection->state != DEAD && (used = frame_parse(buffer + at, size - at, &frame, &needed)) > 0) {
            at += used;
            on_frame(connection, &frame, now);
        }
        if (connection->state == DEAD) return;
        if (needed > READ_BYTES) die("the server sent a frame of %zu bytes; at most %d fit", needed, READ_BYTES);
    }
    if (at < size) {
        bytes_append(&connection->in, buffer + at, size - at);
    } else if (connection->in.data) {
        bytes_free(&connection->in);
    }
}

static void on_connected(struct connection *connection) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) die("cannot connect to port %d: %s", options.port, strerror(error));
    char head[1024], offer[256] = "";
    if (options.subprotocol)
        snprintf(offer, sizeof offer, "Sec-WebSocket-Protocol: %s\r\n", options.subprotocol);
    int length = snprintf(head, sizeof head,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          connection->publisher ? options.publish_path : options.path, options.port, offer);
    connection->state = UPGRADING;
    bytes_append(&connection->out, head, (size_t)length);
    client_flush(connection);
}

static void start(struct connection *connection) {
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) die("cannot open another socket: %s (descriptor limit?)", strerror(errno));
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connection->stuck && options.stuck_receive_bytes)
        setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &options.stuck_receive_bytes, sizeof(int));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        die("cannot connect to port %d: %s", options.port, strerror(errno));
    watch(connection, EPOLL_CTL_ADD, true);
}

static void arm(int64_t deadline) {
    if (deadline == timer_set) return;
    timer_set = deadline;
    struct itimerspec when = {.it_value = {deadline / 1000000000, deadline % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Waits for events, until `deadline` at most, or looks for some when polling, and handles them; `after_each` runs after
 * every readable connection. */
void client_turn(int64_t deadline, void (*after_each)(void)) {
    struct epoll_event events[EVENTS];
    arm(deadline);
    int ready = epoll_wait(poller, events, EVENTS, polling ? 0 : -1);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection == NULL) {
            uint64_t expirations;
            if (read(timer, &expirations, sizeof expirations) > 0) timer_set = 0;
            continue;
        }
        if (connection->state == DEAD) continue;
        if (connection->state == CONNECTING) {
            on_connected(connection);
            continue;
        }
        if (events[i].events & EPOLLOUT) client_flush(connection);
        if (connection->state != DEAD && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            on_readable(connection);
            if (after_each) after_each();
        }
    }
}

static void wait_for(const int *count, int wanted, int started, int64_t deadline) {
    while (*count < wanted) {
        if (now_ns() > deadline)
            die("after %.0f s only %d of %d connections are live (%d upgraded, %d started)", options.connect_s,
                live_count, options.subscribers, upgraded_count, started);
        client_turn(deadline, NULL);
    }
}

/* Returns when every subscriber is live. */
void client_connect_all(void) {
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    buffer = checked(malloc(READ_BYTES));
    connections = checked(calloc((size_t)options.subscribers + 1, sizeof *connections));
    int64_t deadline = now_ns() + (int64_t)(options.connect_s * 1e9);
    for (int i = 0; i < options.subscribers; i++) {
        struct connection *connection = &connections[i];
        connection->stuck = i < options.stuck;
        connection->variant = options.hello_count ? i % options.hello_count : 0;
        connection->sequence = connection->variant % options.sequences;
        wait_for(&live_count, i + 1 - options.connecting, i, deadline);
        start(connection);
    }
    wait_for(&live_count, options.subscribers, options.subscribers, deadline);
}

void client_connect_publisher(void) {
    struct connection *publisher = &connections[options.subscribers];
    publisher->publisher = true;
    int64_t deadline = now_ns() + (int64_t)(options.connect_s * 1e9);
    start(publisher);
    while (publisher->state != LIVE) {
        if (now_ns() > deadline) die("the publisher is not connected after %.0f s", options.connect_s);
        client_turn(deadline, NULL);
    }
}

/* Sends the application's ping on each connection every --ping-s seconds, spread over that time. */
void client_ping_due(int64_t now) {
    static int64_t since;
    static int64_t sent;
    if (options.ping_text == NULL) return;
    int count = options.subscribers + 1;
    if (since == 0) since = now;
    int64_t due = (int64_t)((double)(now - since) / (options.ping_s * 1e9) * count);
    for (; sent < due; sent++) {
        struct connection *connection = &connections[sent % count];
        if (connection->state != LIVE || connection->stuck || connection->out.size > 0) continue;
        client_send(connection, options.ping_text, strlen(options.ping_text));
        client_flush(connection);
    }
}

/* The stuck ones read again, to see what the server kept for them and whether it has closed them. */
void client_release_stuck(void) {
    for (int i = 0; i < options.stuck; i++)
        if (connections[i].state == LIVE) watch(&connections[i], EPOLL_CTL_ADD, false);
}
