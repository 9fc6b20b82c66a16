/* The parts of wsload: options.c reads the command line, account.c knows which signal reached whom and when,
 * client.c speaks WebSocket, wsload.c runs the phases and prints the result. */
#ifndef HELIOGRAPH_BENCH_LOAD_H
#define HELIOGRAPH_BENCH_LOAD_H

#include "common.h"
#include "histogram.h"

enum { PHASES_MAX = 16, VARIANTS_MAX = 16384 };

struct phase {
    bool closed_loop;
    double value; /* closed loop: signals in flight; open loop: signals per second */
    double seconds;
};

struct options {
    int port, subscribers, stuck, stuck_receive_bytes, connecting, core, watch_pid;
    size_t size;
    int sequences;
    const char *path, *publish_path, *subprotocol, *publish_hello, *template;
    const char *live_marker, *error_marker, *answer_marker, *ping_text;
    int unanswered;
    bool polls;
    char *hello[VARIANTS_MAX];
    int hello_count;
    double connect_s, settle_s, warmup_s, drain_s, ping_s;
    struct phase phases[PHASES_MAX];
    int phase_count;
};

extern struct options options;
void options_read(int count, char **arguments);

enum state { CONNECTING, UPGRADING, GREETING, LIVE, DEAD };

struct connection {
    int fd;
    enum state state;
    bool publisher, stuck, wants_out;
    int sequence, variant, close_code;
    int64_t next;     /* the sequence number expected next */
    uint64_t seen;    /* bit k: number next - 1 - k has arrived */
    int64_t received; /* distinct signals */
    uint64_t bytes;
    struct bytes in, out;
};

extern struct connection *connections; /* the subscribers, then the publisher */

/* What was published and what arrived. A signal is out of flight when everybody it is meant for has it. */
struct account {
    int64_t published, delivered, duplicates, out_of_order, foreign;
    int64_t in_flight;
    int64_t record_from, record_to; /* latencies count for signals published in this interval */
    struct histogram latency, last; /* to each subscriber; to the last one */
};

extern struct account account;
void account_open(void);
void account_join(struct connection *connection);
void account_leave(struct connection *connection);
void account_signal(struct connection *connection, int64_t sent, int64_t number, int64_t now);
/* Takes the next signal of the next sequence into account; returns its number. */
int64_t account_publish(int *sequence, int64_t stamp);
int64_t account_missing(void);

extern bool polling; /* client_turn does not sleep */
extern int poller, live_count, upgraded_count, dead_count;
extern int64_t answers; /* to what was published */
void client_connect_all(void);
void client_connect_publisher(void);
void client_turn(int64_t deadline, void (*after_each)(void));
void client_send(struct connection *connection, const char *text, size_t size);
void client_flush(struct connection *connection);
void client_ping_due(int64_t now);
void client_release_stuck(void);

#endif
