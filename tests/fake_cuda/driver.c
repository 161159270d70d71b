// A CUDA driver without a GPU: the C functions pycuda and cuda-bindings call, on malloc and memcpy.
//
// Every operation is written to a log when it is issued and again when it runs. What CUDA forbids and a GPU
// would punish later is refused at once or counted: calls without a current context, copies outside an
// allocation, pageable memory, waits and allocations during a capture. Memory is poisoned when freed and never
// given back, so that late readers show. Environment: FAKE_CUDA_DEVICES (1), FAKE_CUDA_DRIVER (13000).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model.h"
#include "unmodelled.h"

#define API __attribute__((visibility("default")))

// Counters that tests read as one array; the order is that of LIVE in control.py.
enum { DEVICE_BLOCKS, HOST_BLOCKS, STREAMS, EVENTS, GRAPHS, EXECUTABLES, CONTEXTS, PAGEABLE, ON_LEGACY, COUNTERS };
static int live[COUNTERS];

typedef struct Block {
    char* start;
    size_t bytes;
    int kind;
    bool freed;
    struct Block* next;
} Block;

static Block* blocks;
static int device_count = 1, driver_version = 13000, retained[16], ids;
static bool initialised;
static __thread void* contexts[32];
static __thread int depth;

// The log

static char* journal;
static size_t journal_bytes, journal_room;

void note(const char* phase, const char* name, const Stream* stream, int event, const void* target,
          const void* source, size_t bytes) {
    if (journal_room - journal_bytes < 256) {
        journal_room = 2 * journal_room + 65536;
        journal = realloc(journal, journal_room);
    }
    journal_bytes += sprintf(journal + journal_bytes, "%s %s %d %d %lu %lu %lu %ld\n", phase, name,
                             stream ? stream->id : -1, event, (unsigned long)target, (unsigned long)source,
                             (unsigned long)bytes, syscall(SYS_gettid));
}

// Failures that tests plant

static char planted_call[64];
static int planted_error, planted_after, planted_times;

int pending_failure(const char* name) {
    if (!planted_times || strcmp(name, planted_call) || planted_after-- > 0) return SUCCESS;
    planted_times--;
    return planted_error;
}

// Every call holds the lock from here to its return; `LEAVE` returns and lets go of it.

static int leave(int status) {
    pthread_mutex_unlock(&lock);
    return status;
}

#define LEAVE(status) return leave(status)
#define ENTER                                                  \
    pthread_mutex_lock(&lock);                                 \
    {                                                          \
        int planted = pending_failure(__func__);               \
        if (planted) LEAVE(planted);                           \
        if (sticky_error) LEAVE(sticky_error);                 \
    }
#define ENTER_IN_CONTEXT \
    ENTER                \
    if (!depth) LEAVE(INVALID_CONTEXT);
#define NOT_WHILE_CAPTURING             \
    if (capturing_here()) {             \
        invalidate_captures_here();     \
        LEAVE(CAPTURE_UNSUPPORTED);     \
    }

// Devices and contexts

API int cuInit(unsigned flags) {
    (void)flags;
    if (getenv("FAKE_CUDA_DEVICES")) device_count = atoi(getenv("FAKE_CUDA_DEVICES"));
    if (!device_count) return NO_DEVICE;
    initialised = true;
    return SUCCESS;
}

API int cuDriverGetVersion(int* version) {
    if (getenv("FAKE_CUDA_DRIVER")) driver_version = atoi(getenv("FAKE_CUDA_DRIVER"));
    *version = driver_version;
    return SUCCESS;
}

API int cuGetErrorString(int error, const char** text) {
    static const struct { int code; const char* text; } known[] = {
        {INVALID_VALUE, "invalid argument"}, {OUT_OF_MEMORY, "out of memory"},
        {NOT_INITIALIZED, "initialization error"}, {NO_DEVICE, "no CUDA-capable device is detected"},
        {INVALID_DEVICE, "invalid device ordinal"}, {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"}, {NOT_FOUND, "named symbol not found"},
        {NOT_READY, "device not ready"}, {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {LAUNCH_TIMEOUT, "the launch timed out and was terminated"}, {NOT_SUPPORTED, "operation not supported"},
        {CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
        {CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"},
    };
    *text = "an error this fake has no words for";
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (known[i].code == error) *text = known[i].text;
    return SUCCESS;
}

API int cuDeviceGetCount(int* count) { *count = device_count; return initialised ? SUCCESS : NOT_INITIALIZED; }
API int cuDeviceGet(int* device, int index) {
    *device = index;
    return !initialised ? NOT_INITIALIZED : index < 0 || index >= device_count ? INVALID_DEVICE : SUCCESS;
}
API int cuDeviceGetName(char* name, int room, int device) {
    snprintf(name, room, "Fake %c", 'A' + device);
    return SUCCESS;
}
API int cuDeviceComputeCapability(int* major, int* minor, int device) {
    (void)device;
    *major = 9, *minor = 0;
    return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t* bytes, int device) { (void)device; *bytes = 8ul << 30; return SUCCESS; }
API int cuDeviceGetAttribute(int* value, int attribute, int device) {
    (void)attribute, (void)device;
    *value = 1;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void** context, int device) {
    ENTER
    live[CONTEXTS] += !retained[device]++;
    *context = &retained[device];
    LEAVE(SUCCESS);
}
API int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER
    if (!retained[device]) LEAVE(INVALID_CONTEXT);
    live[CONTEXTS] -= !--retained[device];
    LEAVE(SUCCESS);
}
// A failed context can still be pushed and popped.
API int cuCtxPushCurrent_v2(void* context) {
    contexts[depth++] = context;
    return SUCCESS;
}
API int cuCtxPopCurrent_v2(void** context) {
    if (!depth) return INVALID_CONTEXT;
    *context = contexts[--depth];
    return SUCCESS;
}
API int cuCtxGetCurrent(void** context) { *context = depth ? contexts[depth - 1] : NULL; return SUCCESS; }
API int cuCtxGetDevice(int* device) {
    ENTER_IN_CONTEXT
    *device = (int*)contexts[depth - 1] - retained;
    LEAVE(SUCCESS);
}
API int cuCtxSynchronize(void) {
    ENTER_IN_CONTEXT
    NOT_WHILE_CAPTURING
    LEAVE(force_everything());
}

// Memory

static int allocate(void** start, size_t bytes, int kind) {
    ENTER_IN_CONTEXT
    NOT_WHILE_CAPTURING
    if (!bytes) LEAVE(INVALID_VALUE);
    Block* block = calloc(1, sizeof *block);
    *block = (Block){.bytes = bytes, .kind = kind, .next = blocks};
    if (posix_memalign((void**)&block->start, 512, bytes)) LEAVE(OUT_OF_MEMORY);
    memset(block->start, 0xA5, bytes);
    blocks = block;
    live[kind]++;
    *start = block->start;
    LEAVE(SUCCESS);
}
static Block* block_of(const void* address, size_t bytes) {
    const char* at = address;
    for (Block* block = blocks; block; block = block->next)
        if (!block->freed && at >= block->start && at + bytes <= block->start + block->bytes) return block;
    return NULL;
}
static int release(void* start, int kind) {
    ENTER_IN_CONTEXT
    NOT_WHILE_CAPTURING
    Block* block = block_of(start, 0);
    if (!block || block->start != start || block->kind != kind) LEAVE(INVALID_VALUE);
    force_everything();
    memset(block->start, 0xDD, block->bytes);
    block->freed = true;
    live[kind]--;
    LEAVE(SUCCESS);
}
API int cuMemAlloc_v2(void** start, size_t bytes) {
    int planted = pending_failure(__func__);
    return planted ? planted : allocate(start, bytes, DEVICE_BLOCKS);
}
API int cuMemFree_v2(void* start) { return release(start, DEVICE_BLOCKS); }
API int cuMemHostAlloc(void** start, size_t bytes, unsigned flags) {
    (void)flags;
    int planted = pending_failure(__func__);
    return planted ? planted : allocate(start, bytes, HOST_BLOCKS);
}
API int cuMemFreeHost(void* start) { return release(start, HOST_BLOCKS); }
API int cuMemGetInfo_v2(size_t* available, size_t* total) {
    *available = 6ul << 30, *total = 8ul << 30;
    return SUCCESS;
}

static int copy(enum Kind kind, void* target, const void* source, size_t bytes, void* stream) {
    const void* on_device = kind == DOWNLOAD ? source : target;
    const void* on_host = kind == DOWNLOAD ? target : source;
    Block* there = block_of(on_device, bytes);
    if (!there || there->kind != DEVICE_BLOCKS) return ILLEGAL_ADDRESS;
    if (kind == DEVICE_COPY && !block_of(source, bytes)) return ILLEGAL_ADDRESS;
    if (kind != DEVICE_COPY) {
        Block* here = block_of(on_host, bytes);
        live[PAGEABLE] += !here || here->kind != HOST_BLOCKS;
    }
    live[ON_LEGACY] += !stream;
    issue(stream_of(stream), (Operation){.kind = kind, .target = target, .source = source, .bytes = bytes});
    return sticky_error;
}
API int cuMemcpyHtoDAsync_v2(void* target, const void* source, size_t bytes, void* stream) {
    ENTER_IN_CONTEXT
    LEAVE(copy(UPLOAD, target, source, bytes, stream));
}
API int cuMemcpyDtoHAsync_v2(void* target, const void* source, size_t bytes, void* stream) {
    ENTER_IN_CONTEXT
    LEAVE(copy(DOWNLOAD, target, source, bytes, stream));
}
API int cuMemcpyDtoDAsync_v2(void* target, const void* source, size_t bytes, void* stream) {
    ENTER_IN_CONTEXT
    LEAVE(copy(DEVICE_COPY, target, source, bytes, stream));
}
// The synchronous copies wait for everything and end before they return.
static int copy_now(enum Kind kind, void* target, const void* source, size_t bytes) {
    ENTER_IN_CONTEXT
    NOT_WHILE_CAPTURING
    int status = force_everything();
    if (!status) status = copy(kind, target, source, bytes, NULL);
    LEAVE(status ? status : force_stream(stream_of(NULL)));
}
API int cuMemcpyHtoD_v2(void* target, const void* source, size_t bytes) {
    return copy_now(UPLOAD, target, source, bytes);
}
API int cuMemcpyDtoH_v2(void* target, const void* source, size_t bytes) {
    return copy_now(DOWNLOAD, target, source, bytes);
}
API int cuMemsetD8Async(void* target, unsigned char value, size_t bytes, void* stream) {
    ENTER_IN_CONTEXT
    issued[FILL] = value;
    issue(stream_of(stream), (Operation){.kind = FILL, .target = target, .bytes = bytes});
    LEAVE(SUCCESS);
}

// Streams and events

API int cuStreamCreate(Stream** stream, unsigned flags) {
    ENTER_IN_CONTEXT
    *stream = new_stream(flags);
    live[STREAMS]++;
    note("call", "cuStreamCreate", *stream, 0, NULL, NULL, flags);
    LEAVE(SUCCESS);
}
API int cuStreamDestroy_v2(Stream* stream) {
    ENTER_IN_CONTEXT
    if (stream->destroyed) LEAVE(INVALID_HANDLE);
    force_stream(stream);
    stream->destroyed = true;
    forget_stream(stream);
    live[STREAMS]--;
    LEAVE(SUCCESS);
}
API int cuStreamSynchronize(Stream* stream) {
    ENTER_IN_CONTEXT
    if (stream_of(stream)->capturing) {
        stream_of(stream)->invalidated = true;
        LEAVE(CAPTURE_UNSUPPORTED);
    }
    LEAVE(force_stream(stream_of(stream)));
}
API int cuStreamQuery(Stream* stream) {
    ENTER_IN_CONTEXT
    advance();
    LEAVE(stream_of(stream)->work.head ? NOT_READY : SUCCESS);
}
API int cuStreamWaitEvent(Stream* stream, Event* event, unsigned flags) {
    (void)flags;
    ENTER_IN_CONTEXT
    note("call", "cuStreamWaitEvent", stream, event->id, NULL, NULL, 0);
    if (event->latest)
        issue(stream_of(stream), (Operation){.kind = WAIT, .mark = event->latest, .event = event->id});
    LEAVE(SUCCESS);
}
API int cuEventCreate(Event** event, unsigned flags) {
    ENTER_IN_CONTEXT
    *event = calloc(1, sizeof **event);
    **event = (Event){.id = ++ids, .flags = flags};
    live[EVENTS]++;
    LEAVE(SUCCESS);
}
API int cuEventDestroy_v2(Event* event) {
    ENTER_IN_CONTEXT
    if (!event->id) LEAVE(INVALID_HANDLE);
    event->id = 0;
    live[EVENTS]--;
    LEAVE(SUCCESS);
}
API int cuEventRecord(Event* event, Stream* stream) {
    ENTER_IN_CONTEXT
    Mark* mark = calloc(1, sizeof *mark);
    mark->stream = stream_of(stream);
    event->latest = mark;
    issue(mark->stream, (Operation){.kind = RECORD, .mark = mark, .event = event->id});
    LEAVE(SUCCESS);
}
API int cuEventSynchronize(Event* event) {
    ENTER_IN_CONTEXT
    note("call", "cuEventSynchronize", NULL, event->id, NULL, NULL, 0);
    LEAVE(event->latest ? force_mark(event->latest) : SUCCESS);
}
API int cuEventQuery(Event* event) {
    ENTER_IN_CONTEXT
    bool reached = !event->latest || step_towards(event->latest);
    LEAVE(sticky_error ? sticky_error : reached ? SUCCESS : NOT_READY);
}
API int cuEventElapsedTime_v2(float* milliseconds, const Event* start, const Event* end) {
    enum { DISABLE_TIMING = 2 };
    ENTER
    if (!start->latest || !end->latest || (start->flags | end->flags) & DISABLE_TIMING) LEAVE(INVALID_HANDLE);
    if (!start->latest->reached || !end->latest->reached) LEAVE(NOT_READY);
    *milliseconds = 1e3 * (end->latest->seconds - start->latest->seconds);
    LEAVE(SUCCESS);
}

// Kernels: a "cubin" is the path of a library; kernel `k` is its function `fake_k`.

API int cuModuleLoadData(void** module, const char* image) {
    ENTER_IN_CONTEXT
    *module = dlopen(image, RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "%s\n", dlerror());
    LEAVE(*module ? SUCCESS : INVALID_IMAGE);
}
API int cuModuleLoadDataEx(void** module, const char* image, unsigned count, const int* options, void** values) {
    enum { INFO_LOG_BYTES = 4, ERROR_LOG_BYTES = 6 };
    for (unsigned i = 0; i < count; ++i)
        if (options[i] == INFO_LOG_BYTES || options[i] == ERROR_LOG_BYTES) values[i] = 0;
    return cuModuleLoadData(module, image);
}
API int cuModuleUnload(void* module) { (void)module; return SUCCESS; }
typedef struct { KernelCode code; char name[64]; } Function;
API int cuModuleGetFunction(Function** function, void* module, const char* name) {
    ENTER_IN_CONTEXT
    char symbol[80];
    snprintf(symbol, sizeof symbol, "fake_%s", name);
    *function = calloc(1, sizeof **function);
    *(void**)&(*function)->code = dlsym(module, symbol);
    snprintf((*function)->name, sizeof (*function)->name, "%s", name);
    LEAVE((*function)->code ? SUCCESS : NOT_FOUND);
}
// Deprecated, but pycuda's prepared calls still make it; cuLaunchKernel brings its own block.
API int cuFuncSetBlockShape(void* function, int x, int y, int z) {
    (void)function, (void)x, (void)y, (void)z;
    return SUCCESS;
}
API int cuLaunchKernel(const Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                       unsigned bz, unsigned shared, void* stream, void** values, void** extra) {
    (void)shared, (void)values;  // pycuda packs the parameters: {1, buffer, 2, &size, 0}
    ENTER_IN_CONTEXT
    size_t bytes = *(size_t*)extra[3];
    unsigned char* parameters = malloc(bytes + 16);
    memcpy(parameters, extra[1], bytes);
    live[ON_LEGACY] += !stream;
    issue(stream_of(stream), (Operation){.kind = KERNEL, .code = function->code, .grid = {gx, gy, gz},
                                         .block = {bx, by, bz}, .parameters = parameters, .name = function->name});
    LEAVE(SUCCESS);
}

// Graphs

API int cuStreamBeginCapture_v2(Stream* stream, int mode) {
    ENTER_IN_CONTEXT
    note("call", "cuStreamBeginCapture", stream, 0, NULL, NULL, mode);
    if (!stream || stream->capturing) LEAVE(CAPTURE_UNSUPPORTED);
    stream->capturing = true, stream->invalidated = false;
    stream->capturer = pthread_self();
    stream->captured = (Queue){0};
    LEAVE(SUCCESS);
}
// Ends the capture even when it fails.
API int cuStreamEndCapture(Stream* stream, Graph** graph) {
    bool capturing = stream->capturing;
    stream->capturing = false;
    ENTER_IN_CONTEXT
    note("call", "cuStreamEndCapture", stream, 0, NULL, NULL, 0);
    *graph = NULL;
    if (!capturing) LEAVE(INVALID_VALUE);
    if (stream->invalidated) LEAVE(CAPTURE_INVALIDATED);
    Graph* made = calloc(1, sizeof *made);
    *made = (Graph){.id = ++ids, .work = stream->captured};
    for (Operation* each = made->work.head; each; each = each->next) made->nodes++;
    live[GRAPHS]++;
    *graph = made;
    LEAVE(SUCCESS);
}
API int cuGraphGetNodes(const Graph* graph, void** nodes, size_t* count) {
    (void)nodes;
    *count = graph->nodes;
    return SUCCESS;
}
API int cuGraphInstantiateWithFlags(Graph** executable, const Graph* graph, unsigned long long flags) {
    (void)flags;
    ENTER_IN_CONTEXT
    *executable = calloc(1, sizeof **executable);
    **executable = *graph;
    live[EXECUTABLES]++;
    LEAVE(SUCCESS);
}
API int cuGraphLaunch(Graph* executable, Stream* stream) {
    ENTER_IN_CONTEXT
    issue(stream_of(stream), (Operation){.kind = GRAPH, .graph = executable, .event = executable->id});
    LEAVE(SUCCESS);
}
API int cuGraphDestroy(Graph* graph) {
    (void)graph;
    ENTER
    live[GRAPHS]--;
    LEAVE(SUCCESS);
}
API int cuGraphExecDestroy(Graph* executable) {
    (void)executable;
    ENTER
    live[EXECUTABLES]--;
    LEAVE(SUCCESS);
}

// cuda-bindings asks for functions by their name without version.

API int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags, int* found) {
    (void)version, (void)flags;
    static void* self;
    if (!self) self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    char versioned[128];
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *function = dlsym(self, versioned);
    if (!*function) *function = dlsym(self, name);
    if (found) *found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

#define REFUSE(NAME)                                       \
    API int NAME(void) {                                   \
        note("refused", #NAME, NULL, 0, NULL, NULL, 0);    \
        return NOT_SUPPORTED;                              \
    }
UNMODELLED(REFUSE)

// For tests, through ctypes

API void fake_policy(int chosen, unsigned long long seed, unsigned slow_kinds) {
    pthread_mutex_lock(&lock);
    policy = chosen;
    random_state = seed * 0x9E3779B97F4A7C15ull + 1;
    slow = slow_kinds;
    pthread_mutex_unlock(&lock);
}
API void fake_gate(int lead, int total, double seconds) {
    gate_lead = lead, gate_total = total, gate_seconds = seconds;
}
API void fake_fail(const char* call, int error, int after, int times) {
    snprintf(planted_call, sizeof planted_call, "%s", call);
    planted_after = after;
    planted_error = error;
    planted_times = times;
}
API void fake_forget(void) {
    pthread_mutex_lock(&lock);
    drop_everything();
    sticky_error = SUCCESS, gate_total = 0;
    pthread_mutex_unlock(&lock);
}
API void fake_reset(void) {
    fake_forget();
    fake_policy(LAZY, 0, 0);
    memset(issued, 0, sizeof issued);
    journal_bytes = planted_times = live[PAGEABLE] = live[ON_LEGACY] = 0;
    gate_seconds = 20;
}
API size_t fake_log(char* into, size_t room) {
    pthread_mutex_lock(&lock);
    size_t bytes = journal_bytes;
    if (into) memcpy(into, journal, bytes < room ? bytes : room);
    pthread_mutex_unlock(&lock);
    return bytes;
}
API const int* fake_live(void) { return live; }
