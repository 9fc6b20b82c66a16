/* The answer to a WebSocket handshake: base64(SHA-1(key + GUID)), RFC 6455 section 4.2.2. */
#ifndef HELIOGRAPH_BENCH_SHA1_H
#define HELIOGRAPH_BENCH_SHA1_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint32_t rotate_left(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static void sha1_block(uint32_t state[5], const uint8_t block[64]) {
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) { f = (b & c) | (~b & d); k = 0x5a827999; }
        else if (i < 40) { f = b ^ c ^ d; k = 0x6ed9eba1; }
        else if (i < 60) { f = (b & c) | (b & d) | (c & d); k = 0x8f1bbcdc; }
        else { f = b ^ c ^ d; k = 0xca62c1d6; }
        uint32_t next = rotate_left(a, 5) + f + e + k + w[i];
        e = d; d = c; c = rotate_left(b, 30); b = a; a = next;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e;
}

/* `key` has at most 64 characters; `out` takes 29 bytes. */
static void handshake_accept(const char *key, size_t key_size, char out[29]) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t text[128] = {0};
    size_t size = key_size + sizeof guid - 1;
    memcpy(text, key, key_size);
    memcpy(text + key_size, guid, sizeof guid - 1);
    text[size] = 0x80;
    size_t padded = size < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) text[padded - 1 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t at = 0; at < padded; at += 64) sha1_block(state, text + at);
    uint8_t digest[21] = {0};
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0, o = 0; i < 21; i += 3, o += 4) {
        uint32_t three = (uint32_t)digest[i] << 16 | digest[i + 1] << 8 | digest[i + 2];
        for (int j = 0; j < 4; j++) out[o + j] = alphabet[three >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

#endif
