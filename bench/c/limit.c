/* The physical limit a fan-out server is compared with: epoll, one thread, nothing but the system calls.
 *
 *   limit send      one send() per message and subscriber: the limit without batching
 *   limit coalesce  everything read in one turn of the loop leaves in one send() per subscriber: the limit with batching
 *
 * What a connection on /pub sends goes to every connection on /sub. A subscriber whose backlog passes 1 MiB is closed.
 */
#define _GNU_SOURCE
#include "common.h"
#include "sha1.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { BACKLOG_BYTES = 1 << 20, READ_BYTES = 1 << 18, MESSAGE_BYTES = 1 << 22, HEAD_BYTES = 8192, EVENTS = 512 };
enum role { HANDSHAKE, PUBLISHER, SUBSCRIBER };

struct connection {
    int fd;
    enum role role;
    bool closing, wants_out;
    size_t slot; /* in `subscribers` */
    struct bytes in, out;
};

static bool coalesce;
static volatile sig_atomic_t stopping;
static int poller, listener;
static struct connection **subscribers;
static size_t subscriber_count, subscriber_capacity;
static struct connection **closed; /* freed after the turn: events of this turn may still name them */
static size_t closed_count, closed_capacity;
static struct bytes turn; /* coalesce: the frames of this turn */

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void push(struct connection ***list, size_t *count, size_t *capacity, struct connection *connection) {
    if (*count == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 1024;
        *list = checked(realloc(*list, *capacity * sizeof **list));
    }
    (*list)[(*count)++] = connection;
}

static void watch(struct connection *connection, bool wants_out) {
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
    connection->wants_out = wants_out;
}

static void finish(struct connection *connection) {
    if (connection->closing) return;
    connection->closing = true;
    if (connection->role == SUBSCRIBER) {
        struct connection *last = subscribers[--subscriber_count];
        subscribers[connection->slot] = last;
        last->slot = connection->slot;
    }
    close(connection->fd);
    push(&closed, &closed_count, &closed_capacity, connection);
}

/* Returns false when the connection was closed. */
static bool deliver(struct connection *connection, const uint8_t *data, size_t size) {
    if (connection->out.size == 0) {
        ssize_t sent = send(connection->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)size) return true;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            finish(connection);
            return false;
        }
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    if (connection->out.size + size > BACKLOG_BYTES) {
        finish(connection);
        return false;
    }
    bytes_append(&connection->out, data, size);
    if (!connection->wants_out) watch(connection, true);
    return true;
}

static void broadcast(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < subscriber_count;)
        if (deliver(subscribers[i], data, size)) i++; /* else another one took its slot */
}

static void publish(const uint8_t *payload, size_t size) {
    static struct bytes one;
    uint8_t header[FRAME_HEADER_BYTES];
    size_t length = frame_header(header, OPCODE_TEXT, size, NULL);
    struct bytes *target = coalesce ? &turn : &one;
    bytes_append(target, header, length);
    bytes_append(target, payload, size);
    if (!coalesce) {
        broadcast(one.data, one.size);
        bytes_drop(&one, one.size);
    }
}

static void on_frame(struct connection *connection, struct frame *frame) {
    uint8_t reply[FRAME_HEADER_BYTES + 125];
    switch (frame->opcode) {
    case OPCODE_TEXT:
    case OPCODE_BINARY:
        if (connection->role == PUBLISHER) publish(frame->payload, frame->size);
        break;
    case OPCODE_PING:
    case OPCODE_CLOSE: {
        if (frame->size > 125) break;
        uint8_t opcode = frame->opcode == OPCODE_PING ? OPCODE_PONG : OPCODE_CLOSE;
        size_t length = frame_header(reply, opcode, frame->size, NULL);
        memcpy(reply + length, frame->payload, frame->size);
        if (deliver(connection, reply, length + frame->size) && opcode == OPCODE_CLOSE) finish(connection);
        break;
    }
    default:
        break;
    }
}

/* Answers the upgrade once its head is complete. Returns the bytes of the head, 0 while it is incomplete or refused. */
static size_t on_head(struct connection *connection, const char *text, size_t size) {
    const char *end = memmem(text, size, "\r\n\r\n", 4);
    if (end == NULL) {
        if (size > HEAD_BYTES) finish(connection);
        return 0;
    }
    size_t head = (size_t)(end - text) + 4;
    const char *key = NULL;
    for (const char *line = text; line < end; line = (const char *)memchr(line, '\n', head - (size_t)(line - text)) + 1)
        if (strncasecmp(line, "sec-websocket-key:", 18) == 0) key = line + 18;
    bool sub = strncmp(text, "GET /sub ", 9) == 0, pub = strncmp(text, "GET /pub ", 9) == 0;
    size_t key_size = 0;
    if (key) {
        while (*key == ' ') key++;
        key_size = strcspn(key, " \r\n");
    }
    if (key_size == 0 || key_size > 64 || !(sub || pub)) {
        static const char refused[] = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if (deliver(connection, (const uint8_t *)refused, sizeof refused - 1)) finish(connection);
        return 0;
    }
    char accept_key[29], answer[256];
    handshake_accept(key, key_size, accept_key);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", accept_key);
    if (!deliver(connection, (const uint8_t *)answer, (size_t)length)) return 0;
    connection->role = sub ? SUBSCRIBER : PUBLISHER;
    if (sub) {
        connection->slot = subscriber_count;
        push(&subscribers, &subscriber_count, &subscriber_capacity, connection);
    }
    return head;
}

static void on_readable(struct connection *connection) {
    static uint8_t buffer[READ_BYTES];
    ssize_t got = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) finish(connection);
        return;
    }
    bytes_append(&connection->in, buffer, (size_t)got);
    struct bytes *in = &connection->in;
    if (connection->role == HANDSHAKE) {
        size_t head = on_head(connection, (const char *)in->data + in->head, in->size);
        if (head == 0) return;
        bytes_drop(in, head);
    }
    struct frame frame;
    size_t used, needed;
    while (!connection->closing && (used = frame_parse(in->data + in->head, in->size, &frame, &needed)) > 0) {
        on_frame(connection, &frame);
        bytes_drop(in, used);
    }
    if (!connection->closing && needed > MESSAGE_BYTES) finish(connection);
    if (in->size == 0) bytes_free(in);
}

static void on_writable(struct connection *connection) {
    struct bytes *out = &connection->out;
    ssize_t sent = send(connection->fd, out->data + out->head, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR) finish(connection);
        return;
    }
    bytes_drop(out, (size_t)sent);
    if (out->size == 0) {
        bytes_free(out);
        watch(connection, false);
    }
}

static void on_connect(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return; /* EAGAIN: none waits; EMFILE: the client times out and says so */
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *connection = checked(calloc(1, sizeof *connection));
        connection->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        die("cannot listen on 127.0.0.1: %s", strerror(errno));
    printf("listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
}

int main(int count, char **arguments) {
    if (count != 2 || (strcmp(arguments[1], "send") && strcmp(arguments[1], "coalesce")))
        die("usage: limit send|coalesce");
    coalesce = strcmp(arguments[1], "coalesce") == 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    raise_descriptor_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    listen_on_loopback();
    while (!stopping) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                on_connect();
                continue;
            }
            if (!connection->closing && events[i].events & EPOLLOUT) on_writable(connection);
            if (!connection->closing && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(connection);
        }
        if (turn.size > 0) {
            broadcast(turn.data, turn.size);
            bytes_drop(&turn, turn.size);
        }
        while (closed_count > 0) {
            struct connection *connection = closed[--closed_count];
            bytes_free(&connection->in);
            bytes_free(&connection->out);
            free(connection);
        }
    }
    return 0;
}
