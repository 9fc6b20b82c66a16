/* What both programs need: the clock, dying with a sentence, descriptor limits, a byte queue, and WebSocket frames. */
#ifndef HELIOGRAPH_BENCH_COMMON_H
#define HELIOGRAPH_BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

UNUSED static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

UNUSED static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

UNUSED static void *checked(void *memory) {
    if (memory == NULL) die("out of memory");
    return memory;
}

/* Bytes that wait: for the rest of a frame (inbound) or for the kernel (outbound). */
struct bytes {
    uint8_t *data;
    size_t head, size, capacity; /* size counts from head */
};

UNUSED static void bytes_append(struct bytes *queue, const void *data, size_t size) {
    if (queue->head > 0 && queue->head + queue->size + size > queue->capacity) {
        memmove(queue->data, queue->data + queue->head, queue->size);
        queue->head = 0;
    }
    if (queue->size + size > queue->capacity) {
        size_t capacity = queue->capacity ? queue->capacity : 512;
        while (capacity < queue->size + size) capacity *= 2;
        queue->data = checked(realloc(queue->data, capacity));
        queue->capacity = capacity;
    }
    memcpy(queue->data + queue->head + queue->size, data, size);
    queue->size += size;
}

UNUSED static void bytes_drop(struct bytes *queue, size_t size) {
    queue->size -= size;
    queue->head = queue->size ? queue->head + size : 0;
}

UNUSED static void bytes_free(struct bytes *queue) {
    free(queue->data);
    *queue = (struct bytes){0};
}

/* RFC 6455, section 5. */
enum { OPCODE_CONTINUATION = 0, OPCODE_TEXT = 1, OPCODE_BINARY = 2, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };
enum { FRAME_HEADER_BYTES = 14 };

struct frame {
    uint8_t opcode;
    bool final;
    uint8_t *payload; /* unmasked in place */
    size_t size;
};

/* Bytes the frame takes, or 0 while it is incomplete (`needed` then holds its full size if that is known). */
UNUSED static size_t frame_parse(uint8_t *data, size_t have, struct frame *frame, size_t *needed) {
    *needed = 0;
    if (have < 2) return 0;
    size_t header = 2;
    uint64_t size = data[1] & 0x7f;
    if (size == 126) {
        if (have < 4) return 0;
        size = (uint64_t)data[2] << 8 | data[3];
        header = 4;
    } else if (size == 127) {
        if (have < 10) return 0;
        size = 0;
        for (int i = 2; i < 10; i++) size = size << 8 | data[i];
        header = 10;
    }
    bool masked = data[1] & 0x80;
    size_t total = header + (masked ? 4 : 0) + size;
    *needed = total;
    if (have < total) return 0;
    frame->opcode = data[0] & 0x0f;
    frame->final = data[0] & 0x80;
    frame->size = size;
    frame->payload = data + header + (masked ? 4 : 0);
    if (masked)
        for (size_t i = 0; i < size; i++) frame->payload[i] ^= data[header + (i & 3)];
    return total;
}

/* Writes a final frame's header; `mask` is NULL on a server. Returns its length, at most FRAME_HEADER_BYTES. */
UNUSED static size_t frame_header(uint8_t *out, uint8_t opcode, size_t size, const uint8_t *mask) {
    size_t length = 2;
    out[0] = 0x80 | opcode;
    if (size < 126) {
        out[1] = (uint8_t)size;
    } else if (size < 65536) {
        out[1] = 126;
        out[2] = (uint8_t)(size >> 8);
        out[3] = (uint8_t)size;
        length = 4;
    } else {
        out[1] = 127;
        for (int i = 0; i < 8; i++) out[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
        length = 10;
    }
    if (mask) {
        out[1] |= 0x80;
        memcpy(out + length, mask, 4);
        length += 4;
    }
    return length;
}

#endif
