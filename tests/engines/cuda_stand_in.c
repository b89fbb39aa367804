/* A stand-in for NVIDIA's driver: one GPU whose memory is the host's, and which does everything at once.
 *
 * It keeps account as the driver does. Memory, streams and events exist only in a context, a context must be current in
 * the calling thread, what is freed twice or used afterwards is an error, and its memory has an end. Copies from and to
 * memory that is not page-locked, at which the driver is only slow, are errors too. So what our code forgets or frees in
 * the wrong order or thread shows on any machine. CUDA_STAND_IN_CAPABILITY, such as 61, is the GPU's compute capability;
 * CUDA_STAND_IN_GPUS how many there are, CUDA_STAND_IN_PARTS how many parts of GPUs (MIG).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713, NOT_SUPPORTED = 801 };
enum { MEMORY = 1, STREAM, EVENT, PAGES, MODULE };
#define MOST 4096
#define TOTAL ((size_t)2 << 30)
#define CONTEXT ((void *)0x1000)
#define DEPTH 16

static struct thing { int kind; uintptr_t at; size_t bytes; } things[MOST];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int is_initialized, retained;
static unsigned context_flags;
static size_t taken;
static __thread int depth;

static int current(void) { return !is_initialized ? NOT_INITIALIZED : depth > 0 && retained > 0 ? OK : INVALID_CONTEXT; }

static struct thing *find(int kind, uintptr_t at) {
    for (int i = 0; i < MOST; i++)
        if (things[i].kind == kind && things[i].at == at) return &things[i];
    return NULL;
}

static int holds(int kind, uintptr_t at, size_t bytes) {
    for (int i = 0; i < MOST; i++)
        if (things[i].kind == kind && things[i].at <= at && at + bytes <= things[i].at + things[i].bytes) return 1;
    return 0;
}

static int add(int kind, uintptr_t at, size_t bytes) {
    for (int i = 0; i < MOST; i++)
        if (!things[i].kind) { things[i] = (struct thing){kind, at, bytes}; return OK; }
    return OUT_OF_MEMORY;
}

#define IN_CONTEXT int code = current(); if (code) return code; pthread_mutex_lock(&lock)
#define LEAVE(value) do { int told = (value); pthread_mutex_unlock(&lock); return told; } while (0)

static int number(const char *name, int usual) { const char *text = getenv(name); return text ? atoi(text) : usual; }

/* What CUDA_VISIBLE_DEVICES leaves of the GPUs: by number, or by uuid, whose bytes are 0x11 for the first, 0x22 for the
 * next; and of their parts (MIG, 0xA0 and up) the first that it names. What stands behind one that is not there is hidden.
 * Empty, it hides all. The last GPU is lost while there is a file of the name in CUDA_STAND_IN_LOST. */
#define PART 0xA0
static int seen(int *which) {
    int there = number("CUDA_STAND_IN_GPUS", 1), parts = number("CUDA_STAND_IN_PARTS", 0), count = 0;
    const char *at = getenv("CUDA_VISIBLE_DEVICES"), *lost = getenv("CUDA_STAND_IN_LOST");
    if (lost && !access(lost, F_OK)) there--;
    if (at && !*at) return 0;
    if (!at) {
        for (; count < there; count++) which[count] = count;
        return count;
    }
    for (; at; at = strchr(at, ','), at = at ? at + 1 : at) {
        unsigned id = 0;
        if (sscanf(at, "GPU-%2x", &id) == 1) id = id / 0x11 - 1;
        else if (sscanf(at, "MIG-%2x", &id) != 1 && sscanf(at, "%u", &id) != 1) break;
        if (id >= PART ? id >= PART + parts : id >= there) break;
        if (id >= PART && count) continue;
        which[count++] = id;
    }
    return count;
}

int cuInit(unsigned flags) { int which[16]; is_initialized = 1; return seen(which) ? OK : 100; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { int which[16]; *count = seen(which); return OK; }
int cuDeviceGet(int *device, int index) { int which[16]; if (index >= seen(which)) return INVALID_DEVICE; *device = which[index]; return OK; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, device < PART ? "NVIDIA Stand-in" : "NVIDIA Stand-in MIG 1g.1gb"); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = number("CUDA_STAND_IN_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    return OK;
}

int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device < PART ? 0x11 * (device + 1) : device, 16); return OK; }
int cuDeviceGetPCIBusId(char *bus_id, int size, int device) { snprintf(bus_id, size, "0000:%02X:00.0", 0x3B + device % PART); return OK; }

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = context_flags; *active = retained > 0; return OK; }
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) { if (retained) return INVALID_CONTEXT; context_flags = flags; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = CONTEXT; pthread_mutex_lock(&lock); retained++; LEAVE(OK); }
int cuDevicePrimaryCtxRelease_v2(int device) {
    pthread_mutex_lock(&lock);
    if (!retained) LEAVE(INVALID_CONTEXT);
    if (!--retained) { /* all that it held goes with it */
        for (int i = 0; i < MOST; i++)
            if (things[i].kind == MEMORY) free((void *)things[i].at);
        memset(things, 0, sizeof things);
        taken = 0;
    }
    LEAVE(OK);
}
int cuCtxPushCurrent_v2(void *context) { if (context != CONTEXT || depth == DEPTH || !retained) return INVALID_CONTEXT; depth++; return OK; }
int cuCtxPopCurrent_v2(void **context) { if (!depth) return INVALID_CONTEXT; depth--; *context = CONTEXT; return OK; }
int cuCtxSynchronize(void) { return current(); }

int cuMemAlloc_v2(uintptr_t *at, size_t bytes) {
    IN_CONTEXT;
    if (bytes == 0) LEAVE(INVALID_VALUE);
    if (bytes > TOTAL - taken) LEAVE(OUT_OF_MEMORY);
    *at = (uintptr_t)malloc(bytes);
    taken += bytes;
    LEAVE(add(MEMORY, *at, bytes));
}
int cuMemFree_v2(uintptr_t at) {
    IN_CONTEXT;
    struct thing *found = find(MEMORY, at);
    if (!found) LEAVE(INVALID_VALUE);
    taken -= found->bytes;
    free((void *)at);
    found->kind = 0;
    LEAVE(OK);
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { IN_CONTEXT; *free_bytes = TOTAL - taken; *total = TOTAL; LEAVE(OK); }

int cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags) {
    IN_CONTEXT;
    uintptr_t from = (uintptr_t)at & ~(uintptr_t)4095, to = ((uintptr_t)at + bytes + 4095) & ~(uintptr_t)4095;
    for (int i = 0; i < MOST; i++)
        if (things[i].kind == PAGES && things[i].at < to && from < things[i].at + things[i].bytes) LEAVE(ALREADY_REGISTERED);
    LEAVE(add(PAGES, from, to - from));
}
int cuMemHostUnregister(void *at) {
    IN_CONTEXT;
    struct thing *found = find(PAGES, (uintptr_t)at & ~(uintptr_t)4095);
    if (found) found->kind = 0;
    LEAVE(found ? OK : NOT_REGISTERED);
}

static int make(int kind, void **made) { IN_CONTEXT; *made = malloc(1); LEAVE(add(kind, (uintptr_t)*made, 0)); }
static int unmake(int kind, void *made) {
    IN_CONTEXT;
    struct thing *found = find(kind, (uintptr_t)made);
    if (!found) LEAVE(INVALID_HANDLE);
    found->kind = 0;
    free(made);
    LEAVE(OK);
}
static int expect(int kind, void *made) { IN_CONTEXT; LEAVE(find(kind, (uintptr_t)made) ? OK : INVALID_HANDLE); }

int cuStreamCreate(void **stream, unsigned flags) { return make(STREAM, stream); }
int cuStreamDestroy_v2(void *stream) { return unmake(STREAM, stream); }
int cuEventCreate(void **event, unsigned flags) { return make(EVENT, event); }
int cuEventDestroy_v2(void *event) { return unmake(EVENT, event); }
int cuEventRecord(void *event, void *stream) { int code = expect(STREAM, stream); return code ? code : expect(EVENT, event); }
int cuEventQuery(void *event) { return expect(EVENT, event); }
int cuEventSynchronize(void *event) { return expect(EVENT, event); }

static int copy(void *to, const void *from, uintptr_t on_gpu, uintptr_t on_host, size_t bytes, void *stream) {
    int wrong = expect(STREAM, stream);
    if (wrong) return wrong;
    IN_CONTEXT;
    if (!holds(MEMORY, on_gpu, bytes) || !holds(PAGES, on_host, bytes)) LEAVE(INVALID_VALUE);
    memcpy(to, from, bytes);
    LEAVE(OK);
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) { return copy((void *)to, from, to, (uintptr_t)from, bytes, stream); }
int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) { return copy(to, (void *)from, from, (uintptr_t)to, bytes, stream); }
int cuStreamBeginCapture_v2(void *stream, int mode) { return NOT_SUPPORTED; }

/* A kernel is trtjob/imaging/gpu/resample.cu's, whatever is loaded: here an image becomes its first sample, all over. */
struct row { const unsigned char *pixels; int64_t pitch; int width, height, channels, number; };
int cuModuleLoadData(void **module, const void *ptx) { return make(MODULE, module); }
int cuModuleUnload(void *module) { return unmake(MODULE, module); }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = module; return expect(MODULE, module); }
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned count, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra) {
    int wrong = expect(MODULE, function) ? INVALID_HANDLE : expect(STREAM, stream);
    if (wrong) return wrong;
    uintptr_t told = *(uint64_t *)arguments[0], batch = *(uint64_t *)arguments[1];
    size_t size = (size_t)*(int *)arguments[2] * *(int *)arguments[3] * *(int *)arguments[4];
    const size_t row_bytes = 72;
    IN_CONTEXT;
    if (!holds(MEMORY, told, count * row_bytes)) LEAVE(INVALID_VALUE);
    for (unsigned i = 0; i < count; i++) {
        const struct row *row = (const struct row *)(told + i * row_bytes);
        uintptr_t to = batch + row->number * size;
        if (!holds(MEMORY, to, size) || !holds(MEMORY, (uintptr_t)row->pixels, (size_t)row->pitch * row->height)) LEAVE(INVALID_VALUE);
        memset((void *)to, row->pixels[0], size);
    }
    LEAVE(OK);
}

int cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : code == INVALID_CONTEXT ? "invalid device context" : "an error of the stand-in";
    return OK;
}

static const struct { const char *name; void *function; } functions[] = {
#define ONE(name) {#name, name}
#define TWO(name) {#name, name##_v2}
    ONE(cuInit), ONE(cuDriverGetVersion), ONE(cuDeviceGetCount), ONE(cuDeviceGet), ONE(cuDeviceGetName), TWO(cuDeviceTotalMem),
    ONE(cuDeviceGetAttribute), ONE(cuDevicePrimaryCtxRetain), ONE(cuDevicePrimaryCtxGetState), TWO(cuDevicePrimaryCtxSetFlags), TWO(cuDevicePrimaryCtxRelease), TWO(cuCtxPushCurrent),
    TWO(cuCtxPopCurrent), ONE(cuCtxSynchronize), TWO(cuMemAlloc), TWO(cuMemFree), TWO(cuMemGetInfo), TWO(cuMemHostRegister),
    ONE(cuMemHostUnregister), ONE(cuStreamCreate), TWO(cuStreamDestroy), ONE(cuEventCreate), TWO(cuEventDestroy),
    ONE(cuEventRecord), ONE(cuEventQuery), ONE(cuEventSynchronize), TWO(cuMemcpyHtoDAsync), TWO(cuMemcpyDtoHAsync), TWO(cuStreamBeginCapture),
    ONE(cuGetErrorString),
};

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    *function = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i].name, name)) *function = functions[i].function;
    return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
