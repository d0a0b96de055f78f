/* A TCP relay on loopback that adds a round-trip time, for the benchmark.
 *
 * Usage: relay PORT ROUND_TRIP
 *
 * It forwards each connection to PORT on 127.0.0.1, prints the number of its own port, and ends when
 * its standard input ends. ROUND_TRIP is in milliseconds. Each direction is delayed by half of it. The
 * kernel accepts a connection at once, so the first bytes of a client are delayed by one more round
 * trip: that is when a client far away would have sent them.
 *
 * One thread waits by epoll and a timer, so that the peers that are measured keep the processor.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 65536, MOST = 8 * 1024 * 1024, EVENTS = 64 };

/* Bytes that were read, and when they may be written. */
struct chunk {
    struct chunk *next;
    int64_t due;
    size_t begin, end;
    char data[BLOCK];
};

/* One direction of a connection. */
struct pipe {
    int from, to;
    int64_t delay, not_before;
    struct chunk *first, *last;
    size_t held;
    int full;          /* The socket takes no more now: epoll tells when it does. */
    int ended, closed; /* The end was read; the end was passed on. */
    int64_t ended_due;
};

struct link {
    struct link *next, *before;
    struct pipe up, down;
    int dead;
};

static int epoll, timer, listener, upstream;
static int64_t round_trip;
static struct link links = {.next = &links, .before = &links};

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int is_again(void) { return errno == EAGAIN || errno == EINTR; }

/* Read what is there. */
static void fill(struct link *link, struct pipe *pipe) {
    while (!pipe->ended && pipe->held < MOST) {
        struct chunk *chunk = malloc(sizeof *chunk);
        if (!chunk) fail("malloc");
        ssize_t n = read(pipe->from, chunk->data, BLOCK);
        if (n <= 0) {
            int again = n < 0 && is_again();
            free(chunk);
            if (again) return;
            if (n < 0) link->dead = 1;
            pipe->ended = 1;
            pipe->ended_due = now() + pipe->delay;
            return;
        }
        int64_t due = now() + pipe->delay;
        chunk->due = due > pipe->not_before ? due : pipe->not_before;
        chunk->begin = 0;
        chunk->end = n;
        chunk->next = NULL;
        if (pipe->last) pipe->last->next = chunk;
        else pipe->first = chunk;
        pipe->last = chunk;
        pipe->held += n;
        if (n < BLOCK) return;
    }
}

/* Write what is due. */
static void flush(struct link *link, struct pipe *pipe) {
    int64_t t = now();
    struct chunk *chunk;
    pipe->full = 0;
    while ((chunk = pipe->first) && chunk->due <= t) {
        ssize_t n = send(pipe->to, chunk->data + chunk->begin, chunk->end - chunk->begin, MSG_NOSIGNAL);
        if (n < 0) {
            if (is_again()) pipe->full = 1;
            else link->dead = 1;
            return;
        }
        chunk->begin += n;
        pipe->held -= n;
        if (chunk->begin == chunk->end) {
            pipe->first = chunk->next;
            if (!pipe->first) pipe->last = NULL;
            free(chunk);
        }
    }
    if (pipe->ended && !pipe->first && !pipe->closed && pipe->ended_due <= t) {
        shutdown(pipe->to, SHUT_WR);
        pipe->closed = 1;
    }
}

static void watch(int fd, struct link *link) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = link};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

static void take(void) {
    int client, one = 1;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(upstream)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int server = socket(AF_INET, SOCK_STREAM, 0);
        /* Connecting over loopback doesn't wait. */
        if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address)) fail("connect");
        if (fcntl(server, F_SETFL, O_NONBLOCK)) fail("fcntl");
        struct link *link = calloc(1, sizeof *link);
        if (!link) fail("calloc");
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        link->up = (struct pipe){.from = client, .to = server, .delay = round_trip / 2};
        link->down = (struct pipe){.from = server, .to = client, .delay = round_trip - round_trip / 2};
        link->up.not_before = now() + round_trip + round_trip / 2;
        link->next = links.next;
        link->before = &links;
        links.next->before = link;
        links.next = link;
        watch(client, link);
        watch(server, link);
    }
}

static void drop(struct link *link) {
    struct pipe *pipes[] = {&link->up, &link->down};
    for (int i = 0; i < 2; i++)
        for (struct chunk *chunk = pipes[i]->first, *next; chunk; chunk = next) {
            next = chunk->next;
            free(chunk);
        }
    close(link->up.from);
    close(link->down.from);
    link->next->before = link->before;
    link->before->next = link->next;
    free(link);
}

/* Move what can be moved, and return when there is something to do next; 0 for never. */
static int64_t turn(void) {
    int64_t soonest = 0;
    for (struct link *link = links.next, *next; link != &links; link = next) {
        next = link->next;
        struct pipe *pipes[] = {&link->up, &link->down};
        for (int i = 0; i < 2; i++) {
            struct pipe *pipe = pipes[i];
            size_t before;
            do {
                fill(link, pipe);
                before = pipe->held;
                flush(link, pipe);
                /* Full: the edge of epoll is gone, so read again when there is room. */
            } while (before >= MOST && pipe->held < MOST);
            int64_t due = pipe->first ? pipe->first->due : pipe->ended && !pipe->closed ? pipe->ended_due : 0;
            if (due && !pipe->full && (!soonest || due < soonest)) soonest = due;
        }
        if (link->dead || (link->up.closed && link->down.closed)) drop(link);
    }
    return soonest;
}

int main(int count, char **words) {
    if (count != 3) return 2;
    upstream = atoi(words[1]);
    round_trip = (int64_t)(atof(words[2]) * 1e6);
    epoll = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (epoll < 0 || timer < 0 || listener < 0) fail("socket");
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int fds[] = {0, timer, listener};
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &fds[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event)) fail("epoll_ctl");
    }
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &fds[0]) return 0;
            if (events[i].data.ptr == &fds[1]) {
                uint64_t times;
                if (read(timer, &times, sizeof times) < 0 && !is_again()) fail("timer");
            }
            if (events[i].data.ptr == &fds[2]) take();
        }
        int64_t soonest = turn();
        struct itimerspec when = {.it_value = {soonest / 1000000000, soonest % 1000000000}};
        if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL)) fail("timerfd_settime");
    }
}
