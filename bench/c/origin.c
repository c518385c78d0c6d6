/*
 * The WebSocket origin server of the benchmarks: origin PORT
 *
 *   /echo                    sends every message back
 *   /sink                    checks and counts binary messages; a text is answered with "MESSAGES OCTETS BAD"
 *   /source?size=N&ms=T      sends binary messages of N octets for T milliseconds, then the text "MESSAGES"
 *   /stall                   reads nothing after the handshake
 *
 * Whoever does not read what is sent is not read from either, so that nothing grows here.
 */
#define _GNU_SOURCE
#include "accept.h"
#include "websocket.h"

enum kind { HANDSHAKE, ECHO, SINK, SOURCE, STALL };

struct connection {
    int fd;
    enum kind kind;
    uint32_t events; /* that epoll reports now */
    char head[HEAD_SIZE];
    size_t head_size;
    struct reader reader;
    struct tally tally;
    /* What the socket has not taken yet; NULL when it has taken all. */
    uint8_t *pending;
    size_t pending_size, pending_place;
    bool closing; /* a Close has been answered: nothing follows it */
    /* A source's messages, where in a batch it is, how many batches it has sent, and when it ends. */
    struct batch batch;
    size_t batch_place;
    uint64_t batches;
    double until;
};

static int epoll;
static uint8_t input[READ_SIZE];
/* What one read is answered with: never longer than what was read, but for a handshake's or a count's answer. */
static uint8_t output[READ_SIZE + HEAD_SIZE];
static size_t output_size;

static void drop(struct connection *c) {
    close(c->fd);
    free(c->pending);
    free(c->batch.octets);
    free(c);
}

static void put(const void *octets, size_t size) {
    memcpy(output + output_size, octets, size);
    output_size += size;
}

/* Send as much as the socket takes.  Returns how much, or -1 when the connection is lost. */
static ssize_t send_some(struct connection *c, const uint8_t *octets, size_t size) {
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = send(c->fd, octets + sent, size - sent, MSG_NOSIGNAL);
        if (would_block(n))
            break;
        if (n < 0)
            return -1;
        sent += (size_t)n;
    }
    return (ssize_t)sent;
}

/* Send what one read was answered with, and keep what the socket does not take. */
static bool send_output(struct connection *c) {
    ssize_t sent = send_some(c, output, output_size);
    if (sent < 0)
        return false;
    if ((size_t)sent < output_size) {
        c->pending_size = output_size - (size_t)sent;
        c->pending_place = 0;
        c->pending = malloc(c->pending_size);
        memcpy(c->pending, output + sent, c->pending_size);
    }
    output_size = 0;
    return true;
}

static bool send_pending(struct connection *c) {
    ssize_t sent = send_some(c, c->pending + c->pending_place, c->pending_size - c->pending_place);
    if (sent < 0)
        return false;
    c->pending_place += (size_t)sent;
    if (c->pending_place == c->pending_size) {
        free(c->pending);
        c->pending = NULL;
    }
    return true;
}

/* Send batches until the socket is full or the time is over; then say how many messages there were. */
static bool send_source(struct connection *c) {
    while (c->batch_place || now() < c->until) {
        ssize_t sent = send_some(c, c->batch.octets + c->batch_place, c->batch.size - c->batch_place);
        if (sent < 0)
            return false;
        c->batch_place += (size_t)sent;
        if (c->batch_place < c->batch.size)
            return true;
        c->batch_place = 0;
        c->batches++;
    }
    char text[32];
    int size = snprintf(text, sizeof text, "%" PRIu64, c->batches * c->batch.messages);
    output_size += write_frame(output + output_size, OP_TEXT, text, (size_t)size, NULL);
    c->kind = ECHO;
    return send_output(c);
}

/* Find a field of the request's head; its value without the spaces before it, or NULL. */
static const char *field(const char *head, const char *name) {
    const char *found = strcasestr(head, name);
    if (!found)
        return NULL;
    found += strlen(name);
    return found + strspn(found, " ");
}

/* What the request asks for, by its path. */
static void choose(struct connection *c) {
    size_t size = 0;
    int milliseconds = 0;
    if (sscanf(c->head, "GET /source?size=%zu&ms=%d", &size, &milliseconds) == 2) {
        c->kind = SOURCE;
        c->batch = make_batch(size, NULL);
        c->until = now() + milliseconds / 1e3;
    } else if (!strncmp(c->head, "GET /sink ", 10)) {
        c->kind = SINK;
    } else {
        c->kind = strncmp(c->head, "GET /stall ", 11) ? ECHO : STALL;
    }
}

/* Read the opening handshake; no client sends anything before its answer. */
static bool read_handshake(struct connection *c, size_t size) {
    if (c->head_size + size >= HEAD_SIZE)
        return false;
    memcpy(c->head + c->head_size, input, size);
    c->head_size += size;
    c->head[c->head_size] = 0;
    if (!strstr(c->head, "\r\n\r\n"))
        return true;
    const char *key = field(c->head, "\r\nSec-WebSocket-Key:");
    if (!key)
        return false;
    char copy[MAX_KEY + 1] = {0}, accept[ACCEPT_SIZE];
    size_t key_size = strcspn(key, " \r\n");
    memcpy(copy, key, key_size < MAX_KEY ? key_size : MAX_KEY);
    accept_of(copy, accept);
    output_size += (size_t)sprintf((char *)output,
                                   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                   "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                                   accept);
    choose(c);
    return true;
}

static void header_came(const struct connection *c) {
    const struct reader *reader = &c->reader;
    if (reader->opcode != OP_PONG && (c->kind == ECHO || reader->opcode >= OP_CLOSE)) {
        size_t at = output_size;
        output_size += write_header(output + at, reader->opcode == OP_PING ? OP_PONG : reader->opcode, reader->size, NULL);
        if (!reader->final)
            output[at] &= 0x7f;
    }
}

static void piece_came(struct connection *c) {
    const struct reader *reader = &c->reader;
    if (reader->opcode != OP_PONG && (c->kind == ECHO || reader->opcode >= OP_CLOSE))
        put(reader->piece, reader->piece_size);
    else if (reader->opcode == OP_BINARY || reader->opcode == OP_CONTINUATION)
        tally_piece(&c->tally, reader);
}

static void end_came(struct connection *c) {
    const struct reader *reader = &c->reader;
    if (reader->opcode == OP_CLOSE) {
        c->closing = true;
    } else if (c->kind == SINK && reader->opcode == OP_TEXT) {
        char text[80];
        int size = snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu64, c->tally.messages, c->tally.octets,
                            c->tally.bad);
        output_size += write_frame(output + output_size, OP_TEXT, text, (size_t)size, NULL);
    } else if (c->kind == SINK && reader->opcode < OP_CLOSE && reader->final) {
        tally_end(&c->tally);
    }
}

static void read_frames(struct connection *c, size_t size) {
    uint8_t *at = input, *end = input + size;
    while (!c->closing) {
        switch (next_event(&c->reader, &at, end)) {
        case MORE:
            return;
        case HEADER:
            header_came(c);
            break;
        case PIECE:
            piece_came(c);
            break;
        case END:
            end_came(c);
        }
    }
}

/* Read once, and answer.  Returns whether the connection is still there. */
static bool readable(struct connection *c) {
    ssize_t size = recv(c->fd, input, sizeof input, 0);
    if (would_block(size))
        return true;
    if (size <= 0)
        return false;
    if (c->kind != HANDSHAKE)
        read_frames(c, (size_t)size);
    else if (!read_handshake(c, (size_t)size))
        return false;
    return send_output(c);
}

/* Do what there is to do.  Returns whether the connection is still there. */
static bool serve(struct connection *c, uint32_t events) {
    if (c->pending && (events & EPOLLOUT) && !send_pending(c))
        return false;
    if (!c->pending && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !readable(c))
        return false;
    if (!c->pending && c->kind == SOURCE && !send_source(c))
        return false;
    if (!c->pending && c->closing)
        return false;
    uint32_t wanted = c->pending ? EPOLLOUT : c->kind == SOURCE ? EPOLLIN | EPOLLOUT : c->kind == STALL ? 0 : EPOLLIN;
    if (wanted != c->events)
        watch(epoll, EPOLL_CTL_MOD, c->fd, wanted, c);
    c->events = wanted;
    return true;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        send_at_once(fd);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->events = EPOLLIN;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        perror("listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: origin PORT\n");
        return 2;
    }
    prepare();
    int listener = listen_on(atoi(argv[1]));
    epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event events[512];
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (!serve(c, events[i].events))
                drop(c);
        }
    }
}
