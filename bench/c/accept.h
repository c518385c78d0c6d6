/* Sec-WebSocket-Accept for a Sec-WebSocket-Key: Base64 of SHA-1 (RFC 6455 section 4.2.2, RFC 3174). */
#ifndef ACCEPT_H
#define ACCEPT_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MAX_KEY 64     /* octets of a key; an honest one has 24 */
#define ACCEPT_SIZE 29 /* with the zero at the end */

static inline uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static inline void sha1_block(uint32_t state[5], const uint8_t *block) {
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* Base64 of 20 octets, which end with one sign of padding. */
static inline void base64_of_digest(const uint8_t digest[20], char out[ACCEPT_SIZE]) {
    static const char *signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t padded[21] = {0};
    memcpy(padded, digest, 20);
    char *at = out;
    for (int i = 0; i < 21; i += 3) {
        uint32_t three = (uint32_t)padded[i] << 16 | (uint32_t)padded[i + 1] << 8 | padded[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6)
            *at++ = signs[three >> shift & 63];
    }
    out[ACCEPT_SIZE - 2] = '=';
    out[ACCEPT_SIZE - 1] = 0;
}

/* The key has at most MAX_KEY octets: with the GUID it fits into two blocks. */
static inline void accept_of(const char *key, char out[ACCEPT_SIZE]) {
    uint8_t blocks[128] = {0};
    int size = snprintf((char *)blocks, sizeof blocks, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", MAX_KEY, key);
    blocks[size] = 0x80;
    int count = size + 9 > 64 ? 2 : 1;
    blocks[64 * count - 2] = (uint8_t)(size * 8 >> 8);
    blocks[64 * count - 1] = (uint8_t)(size * 8);
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    for (int i = 0; i < count; i++)
        sha1_block(state, blocks + 64 * i);
    uint8_t digest[20];
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    base64_of_digest(digest, out);
}

#endif
