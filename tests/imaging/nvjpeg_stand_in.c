/* A stand-in for nvJPEG, whose GPU's memory is the host's (tests/engines/cuda_stand_in.c).
 *
 * A file becomes RGB of one shade, that of its third last byte: the size is read from its frame, as nvJPEG does, and the
 * bytes of a line are the caller's. A file that does not begin as a JPEG is a bad one, and ends the call where it stands.
 * NVJPEG_STAND_IN_ENGINES=0: the card has no JPEG engine. NVJPEG_STAND_IN_FAILS: the status of every call for a batch.
 * NVJPEG_STAND_IN_STATES: so many states can be made, and no more. What is destroyed twice, or used afterwards, ends the
 * process.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_INITIALIZED = 1, INVALID_PARAMETER = 2, BAD_JPEG = 3, ALLOCATOR_FAILURE = 5, ARCH_MISMATCH = 7 };
enum { HARDWARE = 3, RGB_INTERLEAVED = 5, INTERPOLATED = 32 };
struct image { unsigned char *channel[4]; size_t pitch[4]; };
struct state { int count, is_open; };

int nvjpegCreateEx(int backend, void *memory, void *pinned, unsigned flags, void **handle) {
    const char *engines = getenv("NVJPEG_STAND_IN_ENGINES");
    if (backend == HARDWARE && engines && !atoi(engines)) return ARCH_MISMATCH;
    *handle = malloc(1);
    return flags == INTERPOLATED ? OK : INVALID_PARAMETER;
}
int nvjpegDestroy(void *handle) { free(handle); return OK; }
int nvjpegGetProperty(int which, int *value) { *value = which ? 3 : 13; return OK; }
int nvjpegJpegStateCreate(void *handle, struct state **state) {
    static int made;
    const char *most = getenv("NVJPEG_STAND_IN_STATES");
    if (most && made >= atoi(most)) return ALLOCATOR_FAILURE;
    made++;
    *state = calloc(1, sizeof **state);
    (*state)->is_open = 1;
    return OK;
}
int nvjpegJpegStateDestroy(struct state *state) { if (!state->is_open) abort(); state->is_open = 0; return OK; }

int nvjpegDecodeBatchedInitialize(void *handle, struct state *state, int count, int threads, int format) {
    if (!state->is_open) abort();
    state->count = count;
    return format == RGB_INTERLEAVED ? OK : INVALID_PARAMETER;
}

int nvjpegDecodeBatched(void *handle, struct state *state, const unsigned char *const *files, const size_t *lengths,
                        struct image *images, void *stream) {
    const char *fails = getenv("NVJPEG_STAND_IN_FAILS");
    if (!state->is_open) abort();
    if (fails) return atoi(fails);
    if (!state->count) return NOT_INITIALIZED;
    for (int i = 0; i < state->count; i++) {
        const unsigned char *at = files[i];
        if (at[0] != 0xFF || at[1] != 0xD8) return BAD_JPEG;
        for (at += 2; at[1] != 0xC0; at += 2 + (at[2] << 8 | at[3]));
        size_t height = at[5] << 8 | at[6], width = at[7] << 8 | at[8];
        for (size_t line = 0; line < height; line++)
            memset(images[i].channel[0] + line * images[i].pitch[0], files[i][lengths[i] - 3], 3 * width);
    }
    return OK;
}
