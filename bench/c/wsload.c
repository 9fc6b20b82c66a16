/* The load of the bench: opens N WebSocket subscribers and one publisher, runs the phases asked for, and prints one
 * JSON object: how fast, how late, what was missing, and what it cost the server and this client. */
#define _GNU_SOURCE
#include "load.h"
#include "watched.h"

struct usage {
    double client_s, server_s;
    int64_t delivered, published;
};

static const char *template_parts[64]; /* literal texts; NULL stands for the marker at the same place */
static char template_markers[64];
static int template_count;

static struct usage usage_now(void) {
    return (struct usage){
        .client_s = own_cpu_s(),
        .server_s = watched_cpu_s(options.watch_pid),
        .delivered = account.delivered,
        .published = account.published,
    };
}

/* Splits the template once, so that publishing only copies. */
static void template_read(void) {
    static const struct { const char *text; char marker; } markers[] = {
        {"@DATA@", 'd'}, {"@ID@", 'i'}, {"@SEQUENCE@", 's'}};
    char *rest = checked(strdup(options.template));
    while (*rest) {
        char *first = NULL;
        size_t which = 0;
        for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
            char *found = strstr(rest, markers[i].text);
            if (found && (first == NULL || found < first)) {
                first = found;
                which = i;
            }
        }
        if (template_count + 2 > 64) die("--template: more than 31 markers");
        template_parts[template_count++] = rest;
        if (first == NULL) return;
        *first = 0;
        template_markers[template_count++] = markers[which].marker;
        rest = first + strlen(markers[which].text);
    }
}

static void append_number(struct bytes *text, int64_t number) {
    char digits[24];
    bytes_append(text, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)number));
}

/* {"p":<ns>,"n":<number>,"x":"xx…"}: `size` bytes where that is longer than the numbers alone. */
static void append_data(struct bytes *text, int64_t stamp, int64_t number) {
    static const char padding[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    char head[96];
    int length = snprintf(head, sizeof head, "{\"p\":%lld,\"n\":%lld", (long long)stamp, (long long)number);
    bytes_append(text, head, (size_t)length);
    if (options.size > (size_t)length + 8) {
        bytes_append(text, ",\"x\":\"", 6);
        for (size_t left = options.size - (size_t)length - 8; left > 0;) {
            size_t some = left < sizeof padding - 1 ? left : sizeof padding - 1;
            bytes_append(text, padding, some);
            left -= some;
        }
        bytes_append(text, "\"", 1);
    }
    bytes_append(text, "}", 1);
}

static void publish(int64_t stamp) {
    static struct bytes text;
    int sequence;
    int64_t number = account_publish(&sequence, stamp);
    bytes_drop(&text, text.size);
    for (int i = 0; i < template_count; i++) {
        switch (template_markers[i]) {
        case 'd': append_data(&text, stamp, number); break;
        case 'i': append_number(&text, account.published); break;
        case 's': append_number(&text, sequence); break;
        default: bytes_append(&text, template_parts[i], strlen(template_parts[i]));
        }
    }
    client_send(&connections[options.subscribers], (char *)text.data, text.size);
}

static int64_t window; /* closed loop: signals in flight; 0: not now */

static void fill_window(void) {
    struct connection *publisher = &connections[options.subscribers];
    if (account.in_flight >= window) return;
    for (int64_t published = 0; account.in_flight < window && published < window; published++) publish(now_ns());
    client_flush(publisher);
}

/* A publisher that has been kept waiting must not flood the server: it would be closed for that. */
static bool may_publish(void) {
    return options.answer_marker == NULL || account.published - answers < options.unanswered;
}

static int64_t sooner(int64_t one, int64_t other) { return one < other ? one : other; }

static void turn_until(int64_t deadline) {
    int64_t now = now_ns();
    client_ping_due(now);
    client_turn(sooner(deadline, now + 100000000), fill_window);
}

static bool drained(double limit_s) {
    int64_t deadline = now_ns() + (int64_t)(limit_s * 1e9);
    while (account.in_flight > 0 && now_ns() < deadline) turn_until(deadline);
    return account.in_flight == 0;
}

/* Returns whether everything published arrived in time; the next phase makes no sense otherwise. */
static bool run_phase(const struct phase *phase) {
    struct connection *publisher = &connections[options.subscribers];
    int64_t begin = now_ns(), from = begin + (int64_t)(options.warmup_s * 1e9);
    int64_t to = from + (int64_t)(phase->seconds * 1e9), published = 0, now;
    int64_t missing = account_missing(), duplicates = account.duplicates, swapped = account.out_of_order;
    int64_t foreign = account.foreign, dead = dead_count;
    memset(&account.latency, 0, sizeof account.latency);
    memset(&account.last, 0, sizeof account.last);
    account.record_from = from;
    account.record_to = to;
    window = phase->closed_loop ? (int64_t)phase->value : 0;
    polling = options.polls;
    struct usage start = {0};
    int64_t started = 0;
    while ((now = now_ns()) < to) {
        if (started == 0 && now >= from) {
            start = usage_now();
            started = now;
        }
        int64_t next = started ? to : from;
        if (phase->closed_loop) {
            fill_window();
        } else {
            int64_t due;
            while ((due = begin + (int64_t)((double)published * 1e9 / phase->value)) <= now && may_publish()) {
                publish(due); /* when it was due, not when there was time: a late sender is no excuse */
                published++;
            }
            client_flush(publisher);
            if (due > now) next = sooner(next, due); /* else the next answer wakes us */
        }
        turn_until(next);
    }
    struct usage end = usage_now();
    double elapsed = (double)(now_ns() - started) / 1e9;
    int64_t rss = watched_rss_kib(options.watch_pid);
    window = 0;
    bool all = drained(options.drain_s);
    polling = false;
    double delivered = (double)(end.delivered - start.delivered);
    printf("{\"mode\":\"%s\",\"value\":%g,\"seconds\":%.4f,\"published\":%lld,\"delivered\":%.0f,\"deliveries_per_s\":%.1f,",
           phase->closed_loop ? "window" : "rate", phase->value, elapsed, (long long)(end.published - start.published),
           delivered, delivered / elapsed);
    printf("\"server_cpu_s\":%.3f,\"client_cpu_s\":%.3f,\"server_us_per_delivery\":%.4f,\"server_rss_kib\":%lld,",
           end.server_s - start.server_s, end.client_s - start.client_s,
           delivered > 0 ? (end.server_s - start.server_s) * 1e6 / delivered : 0, (long long)rss);
    printf("\"missing\":%lld,\"duplicates\":%lld,\"out_of_order\":%lld,\"foreign\":%lld,\"closed\":%lld,\"drained\":%s,",
           (long long)(account_missing() - missing), (long long)(account.duplicates - duplicates),
           (long long)(account.out_of_order - swapped), (long long)(account.foreign - foreign),
           (long long)(dead_count - dead), all ? "true" : "false");
    histogram_print("latency_ms", &account.latency);
    putchar(',');
    histogram_print("last_ms", &account.last);
    putchar('}');
    return all;
}

/* Lets the stuck connections read until they are closed or nothing has come for two seconds. */
static void report_stuck(void) {
    uint64_t before = 0, total = 0, quiet = 0;
    for (int i = 0; i < options.stuck; i++) before += connections[i].bytes;
    client_release_stuck();
    int64_t last = now_ns();
    int open = options.stuck;
    while (open > 0 && now_ns() - last < 2000000000) {
        client_turn(now_ns() + 100000000, NULL);
        total = 0;
        open = 0;
        for (int i = 0; i < options.stuck; i++) {
            total += connections[i].bytes;
            open += connections[i].state != DEAD;
        }
        if (total != quiet) last = now_ns();
        quiet = total;
    }
    printf("\"stuck\":{\"count\":%d,\"closed\":%d,\"bytes_kept\":%llu,\"close_codes\":[", options.stuck,
           options.stuck - open, (unsigned long long)(total > before ? total - before : 0));
    for (int i = 0; i < options.stuck; i++) printf("%s%d", i ? "," : "", connections[i].close_code);
    printf("]},");
}

static void settle(double seconds) {
    int64_t deadline = now_ns() + (int64_t)(seconds * 1e9);
    while (now_ns() < deadline) turn_until(deadline);
}

static void print_close_codes(void) {
    int printed = 0;
    printf("\"close_codes\":[");
    for (int i = options.stuck; i < options.subscribers && printed < 20; i++)
        if (connections[i].state == DEAD) printf("%s%d", printed++ ? "," : "", connections[i].close_code);
    printf("]}\n");
}

int main(int count, char **arguments) {
    options_read(count, arguments);
    run_on_core(options.core);
    raise_descriptor_limit();
    template_read();
    account_open();
    int64_t rss_before = watched_rss_kib(options.watch_pid);
    double cpu_before = watched_cpu_s(options.watch_pid);
    int64_t begin = now_ns();
    client_connect_all();
    double took = (double)(now_ns() - begin) / 1e9, cpu = watched_cpu_s(options.watch_pid) - cpu_before;
    settle(options.settle_s);
    int64_t rss_after = watched_rss_kib(options.watch_pid);
    printf("{\"connect\":{\"count\":%d,\"seconds\":%.4f,\"per_s\":%.1f,\"server_cpu_s\":%.3f,\"rss_before_kib\":%lld,"
           "\"rss_after_kib\":%lld},\"phases\":[",
           options.subscribers, took, options.subscribers / took, cpu, (long long)rss_before, (long long)rss_after);
    if (options.phase_count) client_connect_publisher();
    for (int i = 0; i < options.phase_count; i++) {
        if (i > 0) putchar(',');
        fflush(stdout); /* whoever reads it knows that this phase begins */
        if (!run_phase(&options.phases[i])) break;
    }
    printf("],");
    if (options.stuck) report_stuck();
    print_close_codes();
    return 0;
}
