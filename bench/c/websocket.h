/*
 * What the load generator and the origin server share: sockets that do not block, WebSocket frames (RFC 6455
 * section 5.2) read from pieces of any size, and what messages are filled with, so that either side can check it.
 */
#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

#define MAX_HEADER 14    /* octets of a frame's header */
#define HEAD_SIZE 4096   /* octets of a handshake's head */
#define READ_SIZE 262144 /* octets that are read at once */
#define PERIOD 26        /* a message is the alphabet, again and again */

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

/* The alphabet for as long as one read can be: octets from place p on are those at alphabet + p % PERIOD. */
static uint8_t alphabet[READ_SIZE + PERIOD];

/* What every program does first. */
static inline void prepare(void) {
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (size_t i = 0; i < sizeof alphabet; i++)
        alphabet[i] = (uint8_t)('a' + i % PERIOD);
}

/* Seconds, from a clock that is never set. */
static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void send_at_once(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/* Have epoll report these events of a socket, with the pointer that stands for it. */
static inline void watch(int epoll, int operation, int fd, uint32_t events, void *pointer) {
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll, operation, fd, &event)) {
        perror("epoll_ctl");
        exit(1);
    }
}

/* Whether a read or write that failed may be tried again later. */
static inline bool would_block(ssize_t result) { return result < 0 && (errno == EAGAIN || errno == EINTR); }

/* Write a frame's header; mask is NULL for a server's.  Returns its size. */
static inline size_t write_header(uint8_t *out, int opcode, uint64_t size, const uint8_t *mask) {
    uint8_t masked = mask ? 0x80 : 0;
    size_t n = 0;
    out[n++] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        out[n++] = (uint8_t)(masked | size);
    } else if (size < 65536) {
        out[n++] = masked | 126;
        out[n++] = (uint8_t)(size >> 8);
        out[n++] = (uint8_t)size;
    } else {
        out[n++] = masked | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            out[n++] = (uint8_t)(size >> shift);
    }
    if (mask) {
        memcpy(out + n, mask, 4);
        n += 4;
    }
    return n;
}

/* Mask or unmask octets in place; the first is at this place of the frame's payload. */
static inline void apply_mask(uint8_t *data, size_t size, const uint8_t *mask, uint64_t place) {
    uint8_t turned[8];
    for (int i = 0; i < 8; i++)
        turned[i] = mask[(place + (uint64_t)i) & 3];
    uint64_t wide;
    memcpy(&wide, turned, 8);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++)
        data[i] ^= turned[i & 7];
}

/* Write a whole frame; returns its size. */
static inline size_t write_frame(uint8_t *out, int opcode, const void *payload, size_t size, const uint8_t *mask) {
    size_t n = write_header(out, opcode, size, mask);
    memcpy(out + n, payload, size);
    if (mask)
        apply_mask(out + n, size, mask, 0);
    return n + size;
}

/* As many equal messages as fit into about 64 KiB, at least one. */
struct batch {
    uint8_t *octets;
    size_t size;
    uint64_t messages;
};

static inline struct batch make_batch(size_t size, const uint8_t *mask) {
    struct batch batch = {.messages = 65536 / (size + MAX_HEADER) + 1};
    batch.octets = malloc((size + MAX_HEADER) * batch.messages);
    uint8_t *message = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        message[i] = alphabet[i % PERIOD];
    for (uint64_t i = 0; i < batch.messages; i++)
        batch.size += write_frame(batch.octets + batch.size, OP_BINARY, message, size, mask);
    free(message);
    return batch;
}

/* Reads frames from pieces of any size. */
struct reader {
    uint8_t header[MAX_HEADER];
    size_t have;    /* octets of the header that are there */
    bool in_payload;
    bool final;
    int opcode;
    bool masked;
    uint8_t mask[4];
    uint64_t size;  /* octets of the payload, */
    uint64_t place; /* and how many of them have been read */
    /* What was read last: a piece of the payload, unmasked in place. */
    uint8_t *piece;
    size_t piece_size;
};

/* Order within a frame: HEADER, any number of PIECEs, END.  MORE: all octets have been read. */
enum event { MORE, HEADER, PIECE, END };

static inline size_t header_size(const struct reader *reader) {
    if (reader->have < 2)
        return 2;
    int length = reader->header[1] & 127;
    size_t extended = length == 127 ? 8 : length == 126 ? 2 : 0;
    return 2 + extended + (reader->header[1] & 0x80 ? 4 : 0);
}

static inline void parse_header(struct reader *reader) {
    const uint8_t *header = reader->header;
    size_t n = 2;
    reader->final = header[0] & 0x80;
    reader->opcode = header[0] & 15;
    reader->masked = header[1] & 0x80;
    reader->size = header[1] & 127;
    if (reader->size >= 126) {
        size_t extended = reader->size == 126 ? 2 : 8;
        for (reader->size = 0; extended; extended--)
            reader->size = reader->size << 8 | header[n++];
    }
    if (reader->masked)
        memcpy(reader->mask, header + n, 4);
    reader->place = 0;
    reader->have = 0;
    reader->in_payload = true;
}

/* The next event in the octets from *at to end; moves *at behind what it has read. */
static inline enum event next_event(struct reader *reader, uint8_t **at, uint8_t *end) {
    if (!reader->in_payload) {
        while (*at < end) {
            reader->header[reader->have++] = *(*at)++;
            if (reader->have == header_size(reader)) {
                parse_header(reader);
                return HEADER;
            }
        }
        return MORE;
    }
    if (reader->place == reader->size) {
        reader->in_payload = false;
        return END;
    }
    if (*at == end)
        return MORE;
    uint64_t left = reader->size - reader->place;
    reader->piece = *at;
    reader->piece_size = left < (uint64_t)(end - *at) ? (size_t)left : (size_t)(end - *at);
    if (reader->masked)
        apply_mask(reader->piece, reader->piece_size, reader->mask, reader->place);
    reader->place += reader->piece_size;
    *at += reader->piece_size;
    return PIECE;
}

/* What one direction of a connection has received: messages, and whether they were what was sent. */
struct tally {
    uint64_t messages; /* binary, whole */
    uint64_t octets;   /* of their payload */
    uint64_t bad;      /* pieces with other octets than the alphabet's */
    uint64_t place;    /* in the present message */
};

static inline void tally_piece(struct tally *tally, const struct reader *reader) {
    if (memcmp(reader->piece, alphabet + tally->place % PERIOD, reader->piece_size))
        tally->bad++;
    tally->place += reader->piece_size;
    tally->octets += reader->piece_size;
}

static inline void tally_end(struct tally *tally) {
    tally->messages++;
    tally->place = 0;
}

#endif
