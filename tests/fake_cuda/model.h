// The model behind the fake driver: streams are queues that nobody works on until something forces them to.
//
// A real GPU runs queued work some time between its enqueueing and the moment somebody waits for it. Code that
// is ordered rightly gives the same result wherever in that interval the work runs. So the fake chooses, by
// policy, the worst moments:
//
//     LAZY     as late as possible: only what a wait on the host needs, in the order that needs it
//     EAGER    as early as possible: every operation that nothing holds runs at the next call
//     RANDOM   at every call a seeded choice of streams goes some steps ahead
//
// Kinds of operations in `slow` run as late as possible under every policy. Downloads can be gated: number j
// does not run before `gate_lead` more uploads than j + 1 were issued, so a streamer that waits for a download
// before it issues the next upload gets a time-out instead of a result.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100,
       INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500,
       NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_TIMEOUT = 702, NOT_SUPPORTED = 801,
       CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURED_EVENT = 907 };

enum Policy { LAZY, EAGER, RANDOM };
enum Kind { UPLOAD, DOWNLOAD, DEVICE_COPY, FILL, KERNEL, RECORD, WAIT, GRAPH };

typedef int (*KernelCode)(const unsigned* grid, const unsigned* block, const void* parameters);

// One record of an event: what a wait refers to, whatever happens to the event afterwards.
typedef struct {
    bool reached;
    double seconds;
    struct Stream* stream;
} Mark;

typedef struct {
    int id;
    unsigned flags;
    Mark* latest;  // null: never recorded, which counts as reached
} Event;

typedef struct Operation {
    enum Kind kind;
    int number;  // counts operations of one kind in the order of their issue
    void* target;
    const void* source;
    size_t bytes;
    Mark* mark;
    int event;
    KernelCode code;
    unsigned grid[3], block[3];
    unsigned char* parameters;
    struct Graph* graph;
    const char* name;
    struct Operation* next;
} Operation;

typedef struct {
    Operation *head, *tail;
} Queue;

typedef struct Stream {
    int id;
    unsigned flags;
    Queue work;
    bool capturing, invalidated, destroyed;
    pthread_t capturer;
    Queue captured;
    struct Stream* next;
} Stream;

typedef struct Graph {
    int id;
    Queue work;
    int nodes;
} Graph;

extern pthread_mutex_t lock;
extern int sticky_error;
extern int issued[GRAPH + 1];

extern enum Policy policy;
extern unsigned slow;
extern uint64_t random_state;
extern int gate_lead, gate_total;  // gate_total 0: no gate
extern double gate_seconds;

Stream* new_stream(unsigned flags);
void forget_stream(Stream* stream);
Stream* stream_of(void* handle);  // null is the legacy stream, number 0
void issue(Stream* stream, Operation operation);
void run_queue(Queue* queue);
void advance(void);
int force_mark(Mark* mark);
bool step_towards(Mark* mark);
int force_stream(Stream* stream);
int force_everything(void);
void drop_everything(void);
bool capturing_here(void);
void invalidate_captures_here(void);
double now(void);

void note(const char* phase, const char* name, const Stream* stream, int event, const void* target,
          const void* source, size_t bytes);
int pending_failure(const char* name);  // what a test planted for this call

const char* kind_name(enum Kind kind);
