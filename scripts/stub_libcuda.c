/* A CUDA driver without a GPU: every call succeeds and nothing is executed.
 *
 * The CUDA runtime of CubeCL asks the driver what the GPU is, has NVRTC compile each kernel for it, and hands the PTX to
 * the driver. With this library in the place of libcuda.so all of that happens on a machine that has no GPU.
 *
 *   cc -shared -fPIC -o libcuda.so stub_libcuda.c
 *
 *   ELMO_STUB_CAPABILITY  the compute capability to report, without its point: 80, 89 or 90 (the default)
 *   ELMO_STUB_PTX         a folder that gets every module that is loaded, once, as ENTRY-HASH.ptx
 *
 * CubeCL has CUBECL_CUDA_DUMP_PTX for the same. It names files by the last 180 characters of a kernel's type and settings,
 * so that kernels which differ before that overwrite each other; here the content names them.
 *
 * Functions are looked up by name when they are first called: those that are missing here are reported then, by name.
 * Types are reduced to what the calling convention needs, so that no CUDA header is needed to compile this. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

/* What a device of a compute capability has. Kernels depend on it: stages by shared memory, parts by multiprocessors. */
struct device {
  int capability;
  int multiprocessors;
  int threads_of_multiprocessor;
  int shared_of_multiprocessor;
  int shared_of_block; /* by opt-in */
  uint64_t memory;
};

static const struct device DEVICES[] = {
    {80, 108, 2048, 167936, 166912, UINT64_C(80) << 30}, /* A100 */
    {89, 128, 1536, 102400, 101376, UINT64_C(24) << 30}, /* RTX 4090 */
    {90, 132, 2048, 233472, 232448, UINT64_C(80) << 30}, /* H100 */
};

static const struct device *device(void) {
  const char *asked = getenv("ELMO_STUB_CAPABILITY");
  int capability = asked && *asked ? atoi(asked) : 90;
  for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++)
    if (DEVICES[i].capability == capability) return &DEVICES[i];
  fprintf(stderr, "stub_libcuda: no device of ELMO_STUB_CAPABILITY=%s (80, 89, 90)\n", asked);
  exit(2);
}

/* The driver and its devices. */

int cuInit(unsigned flags) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 12080, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *handle, int ordinal) { return *handle = 0, ordinal == 0 ? SUCCESS : INVALID_VALUE; }
int cuDeviceTotalMem_v2(size_t *bytes, int handle) { return *bytes = device()->memory, SUCCESS; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = *total = device()->memory, SUCCESS; }
int cuDeviceGetPCIBusId(char *id, int length, int handle) { return snprintf(id, length, "0000:01:00.0"), SUCCESS; }

int cuDeviceGetName(char *name, int length, int handle) {
  return snprintf(name, length, "stub of compute capability %d", device()->capability), SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int handle) {
  const struct device *it = device();
  switch (attribute) {
    case 1: /* threads of a block */
    case 2: /* block x */
    case 3: /* block y */
      return *value = 1024, SUCCESS;
    case 4: /* block z */
      return *value = 64, SUCCESS;
    case 5: /* grid x */
      return *value = 2147483647, SUCCESS;
    case 6: /* grid y */
    case 7: /* grid z */
      return *value = 65535, SUCCESS;
    case 8: /* shared memory of a block without opt-in */
      return *value = 49152, SUCCESS;
    case 10: /* threads of a warp */
      return *value = 32, SUCCESS;
    case 12: /* registers of a block */
    case 82: /* registers of a multiprocessor */
      return *value = 65536, SUCCESS;
    case 14: /* alignment of textures */
      return *value = 512, SUCCESS;
    case 16:
      return *value = it->multiprocessors, SUCCESS;
    case 39:
      return *value = it->threads_of_multiprocessor, SUCCESS;
    case 75:
      return *value = it->capability / 10, SUCCESS;
    case 76:
      return *value = it->capability % 10, SUCCESS;
    case 81:
      return *value = it->shared_of_multiprocessor, SUCCESS;
    case 97:
      return *value = it->shared_of_block, SUCCESS;
    case 41:  /* unified addresses */
    case 115: /* memory pools */
      return *value = 1, SUCCESS;
    default:
      return *value = 0, SUCCESS;
  }
}

int cuGetErrorName(int error, const char **text) {
  return *text = error == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : "an error of the stub", SUCCESS;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

/* Contexts, streams and events: handles that stand for nothing. */

#define HANDLE ((void *)0x1000)

int cuDevicePrimaryCtxRetain(void **context, int handle) { return *context = HANDLE, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int handle) { return SUCCESS; }
int cuCtxGetCurrent(void **context) { return *context = HANDLE, SUCCESS; }
int cuCtxSetCurrent(void *context) { return SUCCESS; }
int cuCtxSynchronize(void) { return SUCCESS; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, SUCCESS; }

int cuStreamCreate(void **stream, unsigned flags) { return *stream = HANDLE, SUCCESS; }
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return *stream = HANDLE, SUCCESS; }
int cuStreamDestroy_v2(void *stream) { return SUCCESS; }
int cuStreamSynchronize(void *stream) { return SUCCESS; }
int cuStreamQuery(void *stream) { return SUCCESS; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return SUCCESS; }
int cuStreamIsCapturing(void *stream, int *status) { return *status = 0, SUCCESS; }
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) { return function(data), SUCCESS; }

int cuEventCreate(void **event, unsigned flags) { return *event = HANDLE, SUCCESS; }
int cuEventDestroy_v2(void *event) { return SUCCESS; }
int cuEventRecord(void *event, void *stream) { return SUCCESS; }
int cuEventSynchronize(void *event) { return SUCCESS; }
int cuEventQuery(void *event) { return SUCCESS; }
int cuEventElapsedTime(float *ms, void *start, void *end) { return *ms = 1, SUCCESS; }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) { return *ms = 1, SUCCESS; }

/* Memory: addresses of the device that nobody reads, and real memory on the host. What is copied from the device is zero. */

static int allocate(uint64_t *address, size_t bytes) {
  static _Atomic uint64_t next = UINT64_C(0x7f0000000000);
  return *address = atomic_fetch_add(&next, (bytes + 0x1fffff) & ~UINT64_C(0x1fffff)), SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) { return allocate(address, bytes); }
int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) { return allocate(address, bytes); }
int cuMemFree_v2(uint64_t address) { return SUCCESS; }
int cuMemFreeAsync(uint64_t address, void *stream) { return SUCCESS; }

int cuMemAllocHost_v2(void **memory, size_t bytes) {
  return (*memory = calloc(bytes, 1)) != NULL ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { return cuMemAllocHost_v2(memory, bytes); }
int cuMemFreeHost(void *memory) { return free(memory), SUCCESS; }

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { return SUCCESS; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { return SUCCESS; }
int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) { return SUCCESS; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) { return SUCCESS; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { return memset(to, 0, bytes), SUCCESS; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) { return memset(to, 0, bytes), SUCCESS; }
int cuMemcpy2DAsync_v2(const void *copy, void *stream) { return SUCCESS; }
int cuMemsetD8_v2(uint64_t to, unsigned char value, size_t bytes) { return SUCCESS; }
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream) { return SUCCESS; }

/* Kernels. */

/* Writes a module where ELMO_STUB_PTX wants it. */
static int keep(const char *ptx) {
  const char *folder = getenv("ELMO_STUB_PTX");
  if (!folder || !*folder) return SUCCESS;
  uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
  for (const char *at = ptx; *at; at++) hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
  char entry[128] = "unknown", path[4096];
  const char *found = strstr(ptx, ".entry ");
  if (found) sscanf(found, ".entry %100[A-Za-z0-9_$]", entry);
  snprintf(path, sizeof path, "%s/%s-%016" PRIx64 ".ptx", folder, entry, hash);
  FILE *file = fopen(path, "w");
  if (!file || fputs(ptx, file) < 0 || fclose(file) != 0) {
    fprintf(stderr, "stub_libcuda: cannot write %s\n", path);
    exit(2);
  }
  return SUCCESS;
}

int cuModuleLoadData(void **module, const void *image) { return *module = HANDLE, keep(image); }
int cuModuleUnload(void *module) { return SUCCESS; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = HANDLE, SUCCESS; }

/* Attribute 8 is the dynamic shared memory of a block. */
int cuFuncSetAttribute(void *function, int attribute, int value) {
  return attribute == 8 && value > device()->shared_of_block ? INVALID_VALUE : SUCCESS;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra) {
  int grid = grid_x > 0 && grid_y > 0 && grid_z > 0 && grid_x <= 2147483647 && grid_y <= 65535 && grid_z <= 65535;
  int block = block_x > 0 && block_y > 0 && block_z > 0 && (uint64_t)block_x * block_y * block_z <= 1024;
  return grid && block && shared <= (unsigned)device()->shared_of_block ? SUCCESS : INVALID_VALUE;
}

/* A tensor map is 128 bytes, which kernels get as an argument. */
int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, uint64_t address, const uint64_t *shape,
                           const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave,
                           int swizzle, int promotion, int fill) {
  return memset(map, 0, 128), SUCCESS;
}
