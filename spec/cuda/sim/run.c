/* Kernels of the software device: loading what nvrtc.c has compiled, and running it, block after block.
 * Threads that wait for each other have stacks of their own and take turns; those of other kernels run one
 * after the other. */
#define _GNU_SOURCE
#include "inside.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum {
  RUBBISH = 0xa5,
  MOST_THREADS = 1024,
  WARP = 32,
  STACK = 64 << 10,
  SHARED_MOST = 232448,
  PLAIN_SHARED = 48 << 10
};

/* As in emu.h. */
typedef struct emu_host {
  uint32_t thread, threads, block[3], blocks[3], turn;
  void *shared;
  unsigned long long *slots;
  void (*sync)(void);
  void (*sync_warp)(void);
  void (*set_condition)(unsigned long long, uint32_t);
} emu_host;

_Noreturn void sim_die(const char *format, ...) {
  va_list list;
  va_start(list, format);
  fputs("software device: ", stderr);
  vfprintf(stderr, format, list);
  fputc('\n', stderr);
  va_end(list);
  abort();
}

/* ---- loading ---- */

CUresult sim_load(CUmodule *out, const void *image) {
  static unsigned modules; /* names differ by it, as dlopen gives the library that it has for a name, and
                              those that mkstemp draws repeat: they come from the clock */
  size_t bytes;
  memcpy(&bytes, image, sizeof bytes);
  if (bytes < 64 || bytes > 64 << 20 || memcmp((const char *)image + sizeof bytes, "\177ELF", 4))
    return CUDA_ERROR_INVALID_IMAGE;
  CUmodule m = calloc(1, sizeof *m);
  if (!m) return CUDA_ERROR_OUT_OF_MEMORY;
  const char *temporary = getenv("TMPDIR");
  snprintf(m->path, sizeof m->path, "%s/kiln-sim-%u-XXXXXX", temporary && *temporary ? temporary : "/tmp",
           ++modules);
  int f = mkstemp(m->path);
  if (f >= 0 && write(f, (const char *)image + sizeof bytes, bytes) == (ssize_t)bytes)
    m->library = dlopen(m->path, RTLD_NOW | RTLD_LOCAL);
  if (!m->library) fprintf(stderr, "software device: %s\n", f < 0 ? "no file for a module" : dlerror());
  if (f >= 0) close(f), unlink(m->path);
  if (!m->library) {
    free(m);
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *out = m;
  return CUDA_SUCCESS;
}

void sim_unload(CUmodule m) {
  while (m->functions) {
    CUfunction f = m->functions;
    m->functions = f->next;
    free(f);
  }
  dlclose(m->library);
  free(m);
}

CUfunction sim_function(CUmodule m, const char *name) {
  char symbol[200];
  for (CUfunction f = m->functions; f; f = f->next)
    if (!strcmp(f->name, name)) return f;
  CUfunction f = calloc(1, sizeof *f);
  snprintf(symbol, sizeof symbol, "emu_call_%s", name);
  *(void **)&f->call = dlsym(m->library, symbol);
  snprintf(symbol, sizeof symbol, "emu_bytes_%s", name);
  f->bytes = dlsym(m->library, symbol);
  const int *waits = dlsym(m->library, "emu_waits");
  if (!f->call || !f->bytes || !waits || strlen(name) >= sizeof f->name) {
    free(f);
    return NULL;
  }
  f->waits = *waits;
  f->module = m;
  strcpy(f->name, name);
  f->next = m->functions;
  return m->functions = f;
}

CUresult sim_kernel_make(sim_kernel *k, CUfunction f, const unsigned grid[3], const unsigned block[3],
                         unsigned shared, void **arguments) {
  size_t total = 0, at = 0;
  for (int i = 0; f->bytes[i]; i++) total += (f->bytes[i] + 15) & ~(size_t)15;
  if (!grid[0] || !grid[1] || !grid[2] || !block[0] || block[0] > MOST_THREADS || block[1] != 1 ||
      block[2] != 1 || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535 || shared > SHARED_MOST)
    return CUDA_ERROR_INVALID_VALUE;
  if (shared > PLAIN_SHARED && (int)shared > f->shared) return CUDA_ERROR_INVALID_VALUE;
  if (f->bytes[0] && !arguments) return CUDA_ERROR_INVALID_VALUE;
  *k = (sim_kernel){f, {grid[0], grid[1], grid[2]}, block[0], shared, malloc(total + 1)};
  for (int i = 0; f->bytes[i]; i++) {
    memcpy(k->arguments + at, arguments[i], f->bytes[i]);
    at += (f->bytes[i] + 15) & ~(size_t)15;
  }
  return CUDA_SUCCESS;
}

/* ---- threads that take turns ---- */

typedef enum state { READY, AT_BLOCK, AT_WARP, ENDED } state;

typedef struct fiber {
  ucontext_t at;
  state state;
} fiber;

static struct {
  emu_host host;
  fiber *fibers;
  char *stacks;
  ucontext_t home;
  void (*call)(void **);
  void **arguments;
  unsigned long long slots[MOST_THREADS];
  const char *name;
} now;

/* ThreadSanitizer knows one stack a thread: what runs on the others is not told to it. */
#define ON_ITS_STACK __attribute__((no_sanitize_thread))

ON_ITS_STACK static void wait_as(state s) {
  unsigned me = now.host.thread;
  now.fibers[me].state = s;
  swapcontext(&now.fibers[me].at, &now.home);
  now.host.thread = me;
}
ON_ITS_STACK static void sync_block(void) { wait_as(AT_BLOCK); }
ON_ITS_STACK static void sync_warp(void) { wait_as(AT_WARP); }

ON_ITS_STACK static void begin(void) {
  unsigned me = now.host.thread;
  now.call(now.arguments);
  now.fibers[me].state = ENDED;
  swapcontext(&now.fibers[me].at, &now.home);
}

/* Lets go who waits for nobody any more; false: all have ended. */
static bool release(unsigned threads) {
  unsigned at_block = 0, ended = 0, freed = 0;
  for (unsigned w = 0; w < threads; w += WARP) {
    unsigned end = w + WARP < threads ? w + WARP : threads, here = 0, gone = 0;
    for (unsigned i = w; i < end; i++) {
      here += now.fibers[i].state == AT_WARP;
      gone += now.fibers[i].state == ENDED;
      at_block += now.fibers[i].state == AT_BLOCK;
    }
    ended += gone;
    if (here && here == end - w) {
      for (unsigned i = w; i < end; i++) now.fibers[i].state = READY;
      freed += here;
    }
  }
  if (freed) return true;
  if (ended == threads) return false;
  if (at_block + ended != threads)
    sim_die("in %s, threads of a block wait for each other at different places, or those of a warp for one "
            "that has ended",
            now.name);
  for (unsigned i = 0; i < threads; i++)
    if (now.fibers[i].state == AT_BLOCK) now.fibers[i].state = READY;
  return true;
}

static void run_block(unsigned threads) {
  for (volatile unsigned i = 0; i < threads;
       i++) { /* volatile: getcontext may return twice, for all gcc knows */
    fiber *f = &now.fibers[i];
    getcontext(&f->at);
    f->at.uc_stack.ss_sp = now.stacks + (size_t)i * STACK;
    f->at.uc_stack.ss_size = STACK;
    f->at.uc_link = NULL;
    f->state = READY;
    makecontext(&f->at, begin, 0);
  }
  const unsigned turn = sim_order_is_last() ? threads - 1 : 0;
  do
    for (unsigned k = 0; k < threads; k++) {
      const unsigned i = turn ? turn - k : k;
      if (now.fibers[i].state != READY) continue;
      now.host.thread = i;
      swapcontext(&now.home, &now.fibers[i].at);
    }
  while (release(threads));
}

/* ---- running ---- */

static void set_condition(unsigned long long handle, uint32_t value) {
  ((sim_condition *)(uintptr_t)handle)->value = value;
}

static uint32_t turns; /* blocks so far */

static void no_sync(void) { sim_die("%s waits where it said that it never does", now.name); }

void sim_kernel_run(const sim_kernel *k) {
  void *addresses[64];
  size_t at = 0;
  int n = 0;
  for (; k->f->bytes[n] && n < 64; n++) {
    addresses[n] = k->arguments + at;
    at += (k->f->bytes[n] + 15) & ~(size_t)15;
  }
  emu_host **of_kernel = dlsym(k->f->module->library, "emu");
  if (!now.fibers) {
    now.fibers = calloc(MOST_THREADS, sizeof *now.fibers);
    now.stacks = mmap(NULL, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!now.fibers || now.stacks == MAP_FAILED) sim_die("no memory for threads");
  }
  *of_kernel = &now.host;
  now.host = (emu_host){.threads = k->threads,
                        .blocks = {k->grid[0], k->grid[1], k->grid[2]},
                        .slots = now.slots,
                        .sync = k->f->waits ? sync_block : no_sync,
                        .sync_warp = k->f->waits ? sync_warp : no_sync,
                        .set_condition = set_condition};
  now.call = k->f->call;
  now.arguments = addresses;
  now.name = k->f->name;
  char *shared = NULL;
  if (k->shared && posix_memalign((void **)&shared, 64, k->shared)) sim_die("no memory for shared memory");
  now.host.shared = shared;
  const bool last = sim_order_is_last();
  const uint64_t blocks = (uint64_t)k->grid[0] * k->grid[1] * k->grid[2];
  for (uint64_t i = 0; i < blocks; i++) {
    const uint64_t at = last ? blocks - 1 - i : i;
    now.host.block[0] = (uint32_t)(at % k->grid[0]);
    now.host.block[1] = (uint32_t)(at / k->grid[0] % k->grid[1]);
    now.host.block[2] = (uint32_t)(at / k->grid[0] / k->grid[1]);
    now.host.turn = ++turns;
    if (shared) memset(shared, RUBBISH, k->shared); /* nobody finds zeros there */
    if (k->f->waits)
      run_block(k->threads);
    else
      for (unsigned t = 0; t < k->threads; t++) {
        now.host.thread = last ? k->threads - 1 - t : t;
        now.call(addresses);
      }
  }
  free(shared);
  sim_counted.kernels++;
}
