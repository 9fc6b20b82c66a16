/* The command line of wsload. */
#include "load.h"

#include <getopt.h>

struct options options = {
    .path = "/sub", .publish_path = "/pub", .template = "@DATA@", .size = 80, .sequences = 1, .connecting = 128,
    .core = -1, .connect_s = 60, .settle_s = 0.5, .unanswered = 32, .warmup_s = 0.5, .drain_s = 10, .ping_s = 20,
};

static const char usage[] =
    "usage: wsload --port P --subscribers N [--phase window:4:5]... [option]...\n"
    "  --path /sub --publish-path /pub --subprotocol NAME\n"
    "  --hello FILE          texts, each ended by a NUL; subscriber i sends text i modulo their number\n"
    "  --publish-hello TEXT  what the publisher sends first\n"
    "  --live-marker TEXT    a subscriber is live when it has received this (default: when upgraded)\n"
    "  --error-marker TEXT   a frame with this ends the run with an error\n"
    "  --answer-marker TEXT  the publisher is answered with this; at a fixed rate it lets --unanswered K (32) wait for theirs\n"
    "  --template TEXT       what is published; @DATA@, @ID@, @SEQUENCE@ are replaced\n"
    "  --size BYTES          size of @DATA@ (80)\n"
    "  --sequences K         signals go to sequence 0..K-1 in turn; the subscribers of hello text i are in sequence i modulo K\n"
    "  --phase MODE:VALUE:SECONDS   window:IN_FLIGHT or rate:PER_SECOND; may be repeated\n"
    "  --stuck K --stuck-receive-bytes B   the first K subscribers stop reading once they are live\n"
    "  --connecting K --connect-s S --settle-s S --warmup-s S --drain-s S --ping-text TEXT --ping-s S\n"
    "  --polls               never sleep while a phase runs, so that no server pays for waking this client\n"
    "  --watch-pid PID       the server, for its CPU time and memory\n"
    "  --core N              run on this core";

enum option_name {
    PORT = 256, SUBSCRIBERS, PATH, PUBLISH_PATH, SUBPROTOCOL, HELLO, PUBLISH_HELLO, LIVE_MARKER, ERROR_MARKER, ANSWER_MARKER,
    UNANSWERED, TEMPLATE,
    SIZE, SEQUENCES, PHASE, STUCK, STUCK_RECEIVE, CONNECTING_NOW, CONNECT_S, SETTLE_S, WARMUP_S, DRAIN_S, PING_TEXT,
    PING_S, POLLS, WATCH_PID, CORE,
};

static const struct option names[] = {
    {"port", 1, 0, PORT}, {"subscribers", 1, 0, SUBSCRIBERS}, {"path", 1, 0, PATH},
    {"publish-path", 1, 0, PUBLISH_PATH}, {"subprotocol", 1, 0, SUBPROTOCOL}, {"hello", 1, 0, HELLO},
    {"publish-hello", 1, 0, PUBLISH_HELLO}, {"live-marker", 1, 0, LIVE_MARKER}, {"error-marker", 1, 0, ERROR_MARKER},
    {"answer-marker", 1, 0, ANSWER_MARKER}, {"unanswered", 1, 0, UNANSWERED}, {"template", 1, 0, TEMPLATE}, {"size", 1, 0, SIZE}, {"sequences", 1, 0, SEQUENCES}, {"phase", 1, 0, PHASE},
    {"stuck", 1, 0, STUCK}, {"stuck-receive-bytes", 1, 0, STUCK_RECEIVE}, {"connecting", 1, 0, CONNECTING_NOW},
    {"connect-s", 1, 0, CONNECT_S}, {"settle-s", 1, 0, SETTLE_S}, {"warmup-s", 1, 0, WARMUP_S},
    {"drain-s", 1, 0, DRAIN_S}, {"ping-text", 1, 0, PING_TEXT}, {"ping-s", 1, 0, PING_S},
    {"polls", 0, 0, POLLS}, {"watch-pid", 1, 0, WATCH_PID}, {"core", 1, 0, CORE}, {0, 0, 0, 0},
};

static int whole(const char *text, const char *name, int least) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < least || value > 100000000)
        die("--%s: '%s' is not a whole number from %d", name, text, least);
    return (int)value;
}

static double seconds(const char *text, const char *name) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= 0 && value < 1e6)) die("--%s: '%s' is not a number of seconds", name, text);
    return value;
}

static void read_hello(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) die("--hello: cannot read %s: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while ((size = getdelim(&line, &capacity, 0, file)) >= 0) {
        if (size <= 1) continue;
        if (options.hello_count == VARIANTS_MAX) die("--hello: more than %d texts", VARIANTS_MAX);
        options.hello[options.hello_count++] = checked(strdup(line));
    }
    free(line);
    fclose(file);
    if (options.hello_count == 0) die("--hello: %s has no text", path);
}

static void read_phase(const char *text) {
    char mode[8];
    struct phase phase;
    if (options.phase_count == PHASES_MAX) die("more than %d --phase", PHASES_MAX);
    if (sscanf(text, "%7[a-z]:%lf:%lf", mode, &phase.value, &phase.seconds) != 3 || phase.value <= 0 ||
        phase.seconds <= 0 || (strcmp(mode, "window") && strcmp(mode, "rate")))
        die("--phase: '%s' is neither window:IN_FLIGHT:SECONDS nor rate:PER_SECOND:SECONDS", text);
    phase.closed_loop = strcmp(mode, "window") == 0;
    options.phases[options.phase_count++] = phase;
}

static void read_one(int name, const char *label) {
    switch (name) {
    case PORT: options.port = whole(optarg, label, 1); break;
    case SUBSCRIBERS: options.subscribers = whole(optarg, label, 1); break;
    case PATH: options.path = optarg; break;
    case PUBLISH_PATH: options.publish_path = optarg; break;
    case SUBPROTOCOL: options.subprotocol = optarg; break;
    case HELLO: read_hello(optarg); break;
    case PUBLISH_HELLO: options.publish_hello = optarg; break;
    case LIVE_MARKER: options.live_marker = optarg; break;
    case ERROR_MARKER: options.error_marker = optarg; break;
    case ANSWER_MARKER: options.answer_marker = optarg; break;
    case UNANSWERED: options.unanswered = whole(optarg, label, 1); break;
    case TEMPLATE: options.template = optarg; break;
    case SIZE: options.size = (size_t)whole(optarg, label, 1); break;
    case SEQUENCES: options.sequences = whole(optarg, label, 1); break;
    case PHASE: read_phase(optarg); break;
    case STUCK: options.stuck = whole(optarg, label, 0); break;
    case STUCK_RECEIVE: options.stuck_receive_bytes = whole(optarg, label, 1); break;
    case CONNECTING_NOW: options.connecting = whole(optarg, label, 1); break;
    case CONNECT_S: options.connect_s = seconds(optarg, label); break;
    case SETTLE_S: options.settle_s = seconds(optarg, label); break;
    case WARMUP_S: options.warmup_s = seconds(optarg, label); break;
    case DRAIN_S: options.drain_s = seconds(optarg, label); break;
    case PING_TEXT: options.ping_text = optarg; break;
    case PING_S: options.ping_s = seconds(optarg, label); break;
    case POLLS: options.polls = true; break;
    case WATCH_PID: options.watch_pid = whole(optarg, label, 1); break;
    case CORE: options.core = whole(optarg, label, 0); break;
    default: die("%s", usage);
    }
}

void options_read(int count, char **arguments) {
    int name, index = 0;
    while ((name = getopt_long(count, arguments, "", names, &index)) != -1) read_one(name, names[index].name);
    if (optind != count || options.port == 0 || options.subscribers == 0) die("%s", usage);
    if (options.stuck >= options.subscribers) die("--stuck: at least one subscriber must read");
    if (options.hello_count && options.sequences > options.hello_count)
        die("--sequences: %d sequences, but only %d hello texts", options.sequences, options.hello_count);
}
