/*
 * The WebSocket load of the benchmarks: client PORT MODE SIZE CONNECTIONS SECONDS [COUNT]
 *
 *   echo   one message at a time on each connection; what comes back is compared
 *   up     messages to /sink as fast as they are taken; at the end it says what it has counted and compared
 *   down   messages from /source, which are counted and compared
 *   open   handshake, one echo, closing handshake, again and again on CONNECTIONS at once; COUNT of them if given
 *   idle   CONNECTIONS that have had one echo each; held until standard input ends
 *   slow   asks /source for messages, and reads none
 *   stall  messages to /stall, which reads none
 *
 * Prints one line of JSON: messages and octets that arrived (in mode open: connections), seconds that it took,
 * connections that failed, and messages that were not what was sent.
 */
#define _GNU_SOURCE
#include "websocket.h"

enum mode { ECHO, UP, DOWN, OPEN, IDLE, SLOW, STALL, MODES };
static const char *const names[MODES] = {"echo", "up", "down", "open", "idle", "slow", "stall"};

enum state { UNUSED, CONNECTING, HANDSHAKE, RUNNING, CLOSING, DONE };

struct connection {
    int fd;
    enum state state;
    uint32_t events; /* that epoll reports now */
    char head[HEAD_SIZE];
    size_t head_size;
    struct reader reader;
    struct tally tally;
    const uint8_t *out; /* what is being sent, */
    size_t out_size;    /* and how much of it is left */
    uint64_t batches;   /* sent */
    bool ended;         /* everything has been sent */
    char text[128];     /* the present text message */
    size_t text_size;
};

#define OPENING_AT_ONCE 64
#define OPENING_S 60.0  /* for all connections */
#define PATIENCE_S 20.0 /* for what is under way at the end */
#define MAX_ERRORS 1000

/* The example of RFC 6455 section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* What the command line says. */
static int port, connection_count;
static enum mode mode;
static size_t size;
static double seconds;
static uint64_t wanted; /* connections to open in mode open; 0 is any number */

static int epoll;
static uint8_t input[READ_SIZE];
static char request[512];
static size_t request_size;
static uint8_t *message, end_frame[16], close_frame[16];
static size_t message_size, end_size, close_size;
static struct batch batch;

static double started, deadline;
static int opened, done;
static uint64_t begun, messages, octets, errors, bad;

static void build_messages(void) {
    char path[64] = "/echo";
    if (mode == UP || mode == STALL)
        snprintf(path, sizeof path, mode == UP ? "/sink" : "/stall");
    if (mode == DOWN || mode == SLOW)
        snprintf(path, sizeof path, "/source?size=%zu&ms=%d", size, (int)(seconds * 1e3));
    request_size = (size_t)snprintf(request, sizeof request,
                                    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY
                                    "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                                    path, port);
    batch = make_batch(size, MASK);
    message = batch.octets;
    message_size = batch.size / batch.messages;
    end_size = write_frame(end_frame, OP_TEXT, "end", 3, MASK);
    close_size = write_frame(close_frame, OP_CLOSE, "\x03\xe8", 2, MASK);
}

static void listen_to(struct connection *c, uint32_t events) {
    if (events != c->events)
        watch(epoll, EPOLL_CTL_MOD, c->fd, events, c);
    c->events = events;
}

/* Begin to connect; from sixteen addresses in turn, so that ports do not run out. */
static void begin(struct connection *c) {
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int yes = 1;
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    send_at_once(c->fd);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + begun++ % 16)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)) {
        perror("connect");
        exit(1);
    }
    c->state = CONNECTING;
    c->events = EPOLLOUT;
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

/* In mode open the next connection takes the place of one that has ended. */
static void end(struct connection *c) {
    close(c->fd);
    c->state = DONE;
    if (mode == OPEN && errors < MAX_ERRORS && (wanted ? begun < wanted : now() < deadline))
        begin(c);
    else
        done++;
}

static void fail(struct connection *c, const char *why) {
    if (!errors++)
        fprintf(stderr, "a connection failed: %s\n", why);
    if (c->state < RUNNING)
        opened++; /* it has had its turn */
    end(c);
}

/* What comes next after everything before it has been sent. */
static void next_output(struct connection *c) {
    if ((mode != UP && mode != STALL) || c->ended)
        return;
    if (now() < deadline) {
        c->out = batch.octets;
        c->out_size = batch.size;
        c->batches++;
    } else {
        c->out = end_frame;
        c->out_size = end_size;
        c->ended = true;
    }
}

/* Send until the socket is full or there is nothing more.  Returns whether the connection is still there. */
static bool send_all(struct connection *c) {
    while (c->out_size) {
        ssize_t sent = send(c->fd, c->out, c->out_size, MSG_NOSIGNAL);
        if (would_block(sent)) {
            listen_to(c, EPOLLIN | EPOLLOUT);
            return true;
        }
        if (sent < 0)
            return false;
        c->out += sent;
        c->out_size -= (size_t)sent;
        if (!c->out_size && c->state == RUNNING)
            next_output(c);
    }
    listen_to(c, EPOLLIN);
    return true;
}

static bool send_message(struct connection *c) {
    c->out = message;
    c->out_size = message_size;
    return send_all(c);
}

/* All connections are open: now it counts. */
static bool run(struct connection *c) {
    if (mode == SLOW) {
        listen_to(c, 0);
        return true;
    }
    if (mode == ECHO || mode == IDLE || mode == OPEN)
        return send_message(c);
    next_output(c);
    return send_all(c);
}

static bool leave(struct connection *c) {
    c->state = CLOSING;
    c->out = close_frame;
    c->out_size = close_size;
    return send_all(c);
}

/* A binary message is there.  Returns whether the connection still is. */
static bool message_came(struct connection *c) {
    bad += c->tally.place != size;
    tally_end(&c->tally);
    switch (mode) {
    case ECHO:
        return now() < deadline ? send_message(c) : leave(c);
    case OPEN:
        return leave(c);
    case IDLE:
        done++;
        return true;
    default:
        return true;
    }
}

/* The other side says what it has counted. */
static bool text_came(struct connection *c) {
    uint64_t count = 0, all_octets = 0, different = 0;
    c->text[c->text_size] = 0;
    if (mode == UP && sscanf(c->text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &count, &all_octets, &different) == 3) {
        uint64_t sent = c->batches * batch.messages;
        bad += different + (count != sent) + (all_octets != sent * size);
        c->tally.messages = count;
        c->tally.octets = all_octets;
    } else if (mode == DOWN && sscanf(c->text, "%" SCNu64, &count) == 1) {
        bad += count != c->tally.messages;
    } else {
        bad++;
    }
    return leave(c);
}

static void keep_text(struct connection *c) {
    size_t room = sizeof c->text - 1 - c->text_size;
    size_t more = c->reader.piece_size < room ? c->reader.piece_size : room;
    memcpy(c->text + c->text_size, c->reader.piece, more);
    c->text_size += more;
}

/* The end of a frame.  Returns whether the connection goes on. */
static bool frame_came(struct connection *c) {
    switch (c->reader.opcode) {
    case OP_TEXT:
        return text_came(c);
    case OP_BINARY:
    case OP_CONTINUATION:
        return c->reader.final ? message_came(c) : true;
    default:
        return true;
    }
}

static void closed(struct connection *c) {
    messages += mode == OPEN ? 1 : c->tally.messages;
    octets += c->tally.octets;
    bad += c->tally.bad;
    end(c);
}

static void read_frames(struct connection *c, uint8_t *at, uint8_t *stop) {
    for (;;) {
        switch (next_event(&c->reader, &at, stop)) {
        case MORE:
            return;
        case HEADER:
            break;
        case PIECE:
            if (c->reader.opcode == OP_TEXT)
                keep_text(c);
            else if (c->reader.opcode < OP_CLOSE)
                tally_piece(&c->tally, &c->reader);
            break;
        case END:
            if (c->reader.opcode == OP_CLOSE && c->state == CLOSING) {
                closed(c);
                return;
            }
            if (c->reader.opcode == OP_CLOSE || !frame_came(c)) {
                fail(c, "closed by the other side");
                return;
            }
        }
    }
}

/* Read the answer to the handshake; messages may follow at once. */
static void read_answer(struct connection *c, size_t more) {
    size_t before = c->head_size, room = HEAD_SIZE - 1 - before;
    c->head_size += more < room ? more : room;
    memcpy(c->head + before, input, c->head_size - before);
    c->head[c->head_size] = 0;
    char *last = strstr(c->head, "\r\n\r\n");
    if (!last && more >= room)
        fail(c, "the answer's head is too long");
    if (!last)
        return;
    if (strncmp(c->head, "HTTP/1.1 101 ", 13) || !strstr(c->head, ACCEPT)) {
        fail(c, c->head);
        return;
    }
    opened++;
    c->state = RUNNING;
    listen_to(c, mode == SLOW ? 0 : EPOLLIN);
    if (mode == OPEN && !run(c)) {
        fail(c, strerror(errno));
        return;
    }
    size_t head = (size_t)(last + 4 - c->head) - before;
    read_frames(c, input + head, input + more);
}

static void readable(struct connection *c) {
    ssize_t got = recv(c->fd, input, sizeof input, 0);
    if (would_block(got))
        return;
    if (got <= 0)
        fail(c, got ? strerror(errno) : "the connection ended");
    else if (c->state == HANDSHAKE)
        read_answer(c, (size_t)got);
    else
        read_frames(c, input, input + got);
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t error_size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
    if (error || send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) {
        fail(c, strerror(error ? error : errno));
        return;
    }
    c->state = HANDSHAKE;
    listen_to(c, EPOLLIN);
}

static void serve(struct connection *c, uint32_t events) {
    if (c->state == CONNECTING) {
        connected(c);
        return;
    }
    if ((events & EPOLLOUT) && !send_all(c)) {
        fail(c, strerror(errno));
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        readable(c);
}

static void wait_for_events(int milliseconds) {
    struct epoll_event events[512];
    int count = epoll_wait(epoll, events, 512, milliseconds);
    for (int i = 0; i < count; i++)
        serve(events[i].data.ptr, events[i].events);
}

/* Open all connections, some at a time, and let them begin together. */
static void open_all(struct connection *connections) {
    double limit = now() + OPENING_S;
    int next = 0;
    while (opened < connection_count && now() < limit) {
        while (next < connection_count && next - opened < OPENING_AT_ONCE)
            begin(&connections[next++]);
        wait_for_events(100);
    }
    errors += (uint64_t)(connection_count - opened);
    done += connection_count - opened;
    started = now();
    deadline = started + seconds;
    for (int i = 0; i < next; i++)
        if (connections[i].state == RUNNING && !run(&connections[i]))
            fail(&connections[i], strerror(errno));
}

static void report(void) {
    printf("{\"messages\": %" PRIu64 ", \"octets\": %" PRIu64 ", \"seconds\": %.4f, \"errors\": %" PRIu64
           ", \"bad\": %" PRIu64 "}\n",
           messages, octets, now() - started, errors, bad);
    fflush(stdout);
}

/* Hold the connections until whoever started this closes its standard input. */
static void hold(void) {
    messages = (uint64_t)done - errors;
    report();
    char octet;
    while (read(0, &octet, 1) > 0)
        ;
}

static bool parse(int argc, char **argv) {
    if (argc < 6 || argc > 7)
        return false;
    port = atoi(argv[1]);
    for (mode = 0; mode < MODES && strcmp(names[mode], argv[2]); mode++)
        ;
    size = strtoul(argv[3], NULL, 10);
    connection_count = atoi(argv[4]);
    seconds = atof(argv[5]);
    wanted = argc == 7 ? strtoull(argv[6], NULL, 10) : 0;
    return mode != MODES;
}

int main(int argc, char **argv) {
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: client PORT MODE SIZE CONNECTIONS SECONDS [COUNT]\n");
        return 2;
    }
    prepare();
    build_messages();
    epoll = epoll_create1(0);
    struct connection *connections = calloc((size_t)connection_count, sizeof *connections);
    if (mode == OPEN) {
        started = now();
        deadline = started + seconds;
        for (int i = 0; i < connection_count; i++)
            begin(&connections[i]);
    } else {
        open_all(connections);
    }
    bool endless = mode == SLOW || mode == STALL;
    double limit = wanted ? started + seconds : endless ? deadline : deadline + PATIENCE_S;
    while (done < connection_count && now() < limit)
        wait_for_events(50);
    if (!endless)
        errors += (uint64_t)(connection_count - done);
    if (mode == IDLE)
        hold();
    else
        report();
    return 0;
}
