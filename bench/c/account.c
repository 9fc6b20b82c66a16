/* Which signal reached whom, and when: sequence numbers, signals in flight, latencies.
 *
 * Signal g (from 0) belongs to sequence g % K and has the number g / K + 1 there, so every subscriber of a sequence
 * expects 1, 2, 3, ... and each gap, repetition or swap shows. */
#include "load.h"

enum { FLIGHTS = 1 << 18 };

struct flight {
    int64_t sent;
    uint32_t remaining;
};

struct account account;
static struct flight *flights; /* of signal g, at g % FLIGHTS */
static uint32_t *members;      /* readers per sequence */

void account_open(void) {
    flights = checked(calloc(FLIGHTS, sizeof *flights));
    members = checked(calloc((size_t)options.sequences, sizeof *members));
}

static int64_t signal_index(int sequence, int64_t number) { return (number - 1) * options.sequences + sequence; }

/* How many numbers of this sequence have been published. */
static int64_t published_in(int sequence) {
    return (account.published - sequence + options.sequences - 1) / options.sequences;
}

static void arrived(int sequence, int64_t number, int64_t now) {
    int64_t index = signal_index(sequence, number);
    if (index < account.published - FLIGHTS) return;
    struct flight *flight = &flights[index % FLIGHTS];
    if (flight->remaining == 0 || --flight->remaining > 0) return;
    account.in_flight--;
    if (now && flight->sent >= account.record_from && flight->sent < account.record_to)
        histogram_add(&account.last, now - flight->sent);
}

void account_join(struct connection *connection) {
    connection->next = published_in(connection->sequence) + 1;
    members[connection->sequence]++;
}

/* Nobody waits any more for what this one has not received; it stays in the count of what is missing. */
void account_leave(struct connection *connection) {
    members[connection->sequence]--;
    for (int64_t number = connection->next; number <= published_in(connection->sequence); number++)
        arrived(connection->sequence, number, 0);
}

void account_signal(struct connection *connection, int64_t sent, int64_t number, int64_t now) {
    if (number < 1 || number > published_in(connection->sequence)) {
        account.foreign++;
        return;
    }
    int64_t ahead = number - connection->next;
    if (ahead >= 0) {
        for (int64_t skipped = connection->next; skipped < number; skipped++)
            arrived(connection->sequence, skipped, 0);
        connection->seen = ahead < 63 ? connection->seen << (ahead + 1) | 1 : 1;
        connection->next = number + 1;
        arrived(connection->sequence, number, now);
    } else {
        int64_t behind = -ahead - 1;
        if (behind > 63 || connection->seen >> behind & 1) {
            account.duplicates++;
            return;
        }
        connection->seen |= (uint64_t)1 << behind;
        account.out_of_order++;
    }
    connection->received++;
    account.delivered++;
    if (sent >= account.record_from && sent < account.record_to) histogram_add(&account.latency, now - sent);
}

int64_t account_publish(int *sequence, int64_t stamp) {
    if (account.in_flight == FLIGHTS) die("more than %d signals in flight: the server does not keep up", FLIGHTS);
    *sequence = (int)(account.published % options.sequences);
    int64_t number = account.published / options.sequences + 1;
    flights[account.published % FLIGHTS] = (struct flight){stamp, members[*sequence]};
    if (members[*sequence] > 0) account.in_flight++;
    account.published++;
    return number;
}

int64_t account_missing(void) {
    int64_t missing = 0;
    for (int i = 0; i < options.subscribers; i++)
        if (!connections[i].stuck) missing += published_in(connections[i].sequence) - connections[i].received;
    return missing;
}
