// Streams, events and the choice of when queued work runs; see model.h.
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
int sticky_error;
int issued[GRAPH + 1];
enum Policy policy = LAZY;
unsigned slow;
uint64_t random_state = 1;
int gate_lead, gate_total;
double gate_seconds = 20;

static Stream legacy;
static Stream* streams = &legacy;
static int stream_count;

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

const char* kind_name(enum Kind kind) {
    static const char* names[] = {"upload", "download", "device_copy", "fill", "kernel", "record", "wait", "graph"};
    return names[kind];
}

Stream* new_stream(unsigned flags) {
    Stream* made = calloc(1, sizeof *made);
    made->id = ++stream_count;
    made->flags = flags;
    made->next = streams;
    streams = made;
    return made;
}

void forget_stream(Stream* stream) {
    Stream** link = &streams;
    while (*link != stream) link = &(*link)->next;
    *link = stream->next;
}

Stream* stream_of(void* handle) {
    return handle ? handle : &legacy;
}

static void append(Queue* queue, Operation operation) {
    Operation* made = malloc(sizeof *made);
    *made = operation;
    made->next = NULL;
    if (queue->tail) queue->tail->next = made; else queue->head = made;
    queue->tail = made;
}

void issue(Stream* stream, Operation operation) {
    operation.number = issued[operation.kind]++;
    if (!operation.name) operation.name = kind_name(operation.kind);
    note(stream->capturing ? "capture" : "issue", operation.name, stream, operation.event, operation.target,
         operation.source, operation.bytes);
    append(stream->capturing ? &stream->captured : &stream->work, operation);
    pthread_cond_broadcast(&changed);
    advance();
}

static void run(const Stream* stream, const Operation* operation) {
    note("run", operation->name, stream, operation->event, operation->target, operation->source, operation->bytes);
    switch (operation->kind) {
        case UPLOAD: case DOWNLOAD: case DEVICE_COPY:
            memmove(operation->target, operation->source, operation->bytes);
            break;
        case FILL:
            memset(operation->target, operation->number, operation->bytes);
            break;
        case KERNEL:
            if (operation->code(operation->grid, operation->block, operation->parameters))
                sticky_error = ILLEGAL_ADDRESS;
            break;
        case RECORD:
            operation->mark->reached = true;
            operation->mark->seconds = now();
            break;
        case GRAPH:
            for (const Operation* each = operation->graph->work.head; each; each = each->next) run(stream, each);
            break;
        case WAIT:
            break;
    }
}

static bool gated(const Operation* operation) {
    if (operation->kind != DOWNLOAD || !gate_total) return false;
    int needed = operation->number + 1 + gate_lead;
    return issued[UPLOAD] < (needed < gate_total ? needed : gate_total);
}

static bool runnable(const Operation* operation) {
    return operation && !gated(operation) && !(operation->kind == WAIT && !operation->mark->reached);
}

static void run_head(Stream* stream) {
    Operation* operation = stream->work.head;
    stream->work.head = operation->next;
    if (!stream->work.head) stream->work.tail = NULL;
    run(stream, operation);
    pthread_cond_broadcast(&changed);
}

static bool free_to_run(const Stream* stream) {
    const Operation* head = stream->work.head;
    return !sticky_error && runnable(head) && !(slow & 1u << head->kind);
}

static unsigned chance(unsigned below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

void advance(void) {
    if (policy == LAZY) return;
    bool progress = true;
    while (progress) {
        progress = false;
        for (Stream* stream = streams; stream; stream = stream->next)
            if (free_to_run(stream) && (policy == EAGER || chance(2))) {
                run_head(stream);
                progress = true;
            }
        if (policy == RANDOM && !chance(3)) break;
    }
}

// Wait until something changes; after `gate_seconds` without the gate opening the GPU is declared hung.
static void wait_for_gate(double deadline) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_cond_timedwait(&changed, &lock, &until);
    if (now() > deadline) sticky_error = LAUNCH_TIMEOUT;
}

int force_mark(Mark* mark) {
    double deadline = now() + gate_seconds;
    while (!mark->reached && !sticky_error) {
        Operation* head = mark->stream->work.head;
        if (head->kind == WAIT && !head->mark->reached) force_mark(head->mark);
        else if (gated(head)) wait_for_gate(deadline);
        else run_head(mark->stream);
    }
    advance();  // what this made runnable may run before the caller asks for more
    return sticky_error;
}

bool step_towards(Mark* mark) {
    while (!mark->reached) {
        Operation* head = mark->stream->work.head;
        if (head->kind == WAIT && !head->mark->reached) {
            mark = head->mark;
            continue;
        }
        if (runnable(head) && !sticky_error) run_head(mark->stream);
        return false;
    }
    return true;
}

int force_stream(Stream* stream) {
    Mark* end = calloc(1, sizeof *end);
    end->stream = stream;
    append(&stream->work, (Operation){.kind = RECORD, .mark = end, .name = "end"});
    return force_mark(end);
}

int force_everything(void) {
    for (Stream* stream = streams; stream; stream = stream->next) force_stream(stream);
    return sticky_error;
}

void drop_everything(void) {
    for (Stream* stream = streams; stream; stream = stream->next) {
        for (Operation* each = stream->work.head; each; each = each->next)
            if (each->kind == RECORD) each->mark->reached = true;
        stream->work = (Queue){0};
    }
}

static Stream* capture_of_this_thread(void) {
    for (Stream* stream = streams; stream; stream = stream->next)
        if (stream->capturing && pthread_equal(stream->capturer, pthread_self())) return stream;
    return NULL;
}

bool capturing_here(void) {
    return capture_of_this_thread() != NULL;
}

void invalidate_captures_here(void) {
    Stream* stream = capture_of_this_thread();
    if (stream) stream->invalidated = true;
}
