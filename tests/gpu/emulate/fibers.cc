/* Threads of a block as fibers; see cuda_runtime.h. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#define CHECKED_STACKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECKED_STACKS 1
#endif
#endif
#ifdef CHECKED_STACKS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- switching stacks --------------------------------------------------------------------------- */

#ifdef __x86_64__
/* swapcontext() asks the kernel for the signal mask each time, which would be most of the run time. */
asm(R"(
.text
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, .-emulated_switch
)");
struct context {
    void *stack_pointer;
};
extern "C" void emulated_switch(struct context *from, struct context *to);

static void prepare(struct context *c, char *stack, size_t bytes, void (*entry)(void)) {
    void **top = (void **)(stack + bytes) - 1; /* entry finds the stack as after a call */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) {
        *--top = NULL;
    }
    c->stack_pointer = top;
}
#else
#include <ucontext.h>
struct context {
    ucontext_t u;
};
static void emulated_switch(struct context *from, struct context *to) {
    swapcontext(&from->u, &to->u);
}
static void prepare(struct context *c, char *stack, size_t bytes, void (*entry)(void)) {
    getcontext(&c->u);
    c->u.uc_stack.ss_sp = stack;
    c->u.uc_stack.ss_size = bytes;
    c->u.uc_link = NULL;
    makecontext(&c->u, entry, 0);
}
#endif

/* ---- a block ------------------------------------------------------------------------------------- */

#define MOST_THREADS 1024
#define STACK_BYTES  ((size_t)64 << 10)
#define WARP         32

struct emulated_place emulated_place;

enum waiting { RUNNING, FOR_WARP, FOR_BLOCK, DONE };

static struct block {
    struct context threads[MOST_THREADS], host;
    char *stacks;
    enum waiting state[MOST_THREADS];
    unsigned ready[MOST_THREADS], n_ready; /* threads that can go on */
    unsigned n_threads, n_done, n_at_block, n_at_warp[MOST_THREADS / WARP], n_left_warp[MOST_THREADS / WARP];
    uint64_t given[2][MOST_THREADS]; /* values of a shuffle and of the one before, which slow lanes still read */
    unsigned turn[MOST_THREADS];
    unsigned current;
    void (*run)(void *);
    void *kernel;
    uint64_t random;
    unsigned long seed; /* that `random` began with */
    bool deep;          /* the thread that could go on last goes on first: one warp runs as far ahead as it can */
    bool from_host;
    const void *host_stack;
    size_t host_bytes;
} b;

static unsigned random_below(unsigned n) {
    b.random = b.random * 6364136223846793005u + 1442695040888963407u;
    return emulated_gpu.seed ? (unsigned)((b.random >> 33) % n) : 0;
}

static void stuck(const char *what) {
    fprintf(stderr, "emulated GPU: block (%u, %u, %u): %s: ", blockIdx.x, blockIdx.y, blockIdx.z, what);
    for (unsigned t = 0; t < b.n_threads; t++) {
        fputc("rwbd"[b.state[t]], stderr); /* runs, waits for its warp, for its block, is done */
    }
    fputc('\n', stderr);
    abort();
}

static void locate(unsigned t) {
    b.current = t;
    emulated_place.thread = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y);
}

/* leaves: the stack that is left is not needed any more. t: the thread that goes on, unless it is the host. */
static void switch_to(struct context *from, struct context *to, bool leaves, unsigned t) {
#ifdef CHECKED_STACKS
    void *fake = NULL;
    const bool host = to == &b.host;
    __sanitizer_start_switch_fiber(leaves ? NULL : &fake, host ? b.host_stack : b.stacks + t * STACK_BYTES,
                                   host ? b.host_bytes : STACK_BYTES);
    emulated_switch(from, to);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#else
    (void)leaves;
    (void)t;
    emulated_switch(from, to);
#endif
}

/* Goes on with any thread that can; the caller's is not in the list, or has been put there. */
static void next(struct context *from, bool leaves) {
    if (b.n_ready == 0) {
        if (b.n_done < b.n_threads) {
            stuck("threads wait for others that do not come");
        }
        switch_to(from, &b.host, leaves, 0);
        return;
    }
    const unsigned i = b.deep ? b.n_ready - 1 : random_below(b.n_ready), t = b.ready[i];
    b.ready[i] = b.ready[--b.n_ready];
    if (from == &b.threads[t]) {
        return;
    }
    locate(t);
    switch_to(from, &b.threads[t], leaves, t);
}

static void release(enum waiting state, unsigned first, unsigned end) {
    const unsigned n = (end < b.n_threads ? end : b.n_threads) - first, begin = random_below(n);
    for (unsigned i = 0; i < n; i++) {
        const unsigned t = first + (begin + i) % n;
        if (b.state[t] == state) {
            b.state[t] = RUNNING;
            b.ready[b.n_ready++] = t;
        }
    }
}

static void wait_as(enum waiting state) {
    const unsigned t = b.current, warp = t / WARP;
    b.state[t] = state;
    if (state == FOR_WARP) {
        if (b.n_left_warp[warp] > 0) {
            stuck("a warp exchanges values after some of its threads have returned");
        }
        if (++b.n_at_warp[warp] == WARP) {
            b.n_at_warp[warp] = 0;
            release(FOR_WARP, warp * WARP, warp * WARP + WARP);
        }
    } else if (++b.n_at_block == b.n_threads - b.n_done) {
        b.n_at_block = 0;
        release(FOR_BLOCK, 0, b.n_threads);
    }
    next(&b.threads[t], false);
    locate(t);
}

void emulated_block_wait(void) {
    wait_as(FOR_BLOCK);
}

uint64_t emulated_exchange(uint64_t value, unsigned from) {
    const unsigned t = b.current, turn = b.turn[t]++ & 1;
    if (b.n_threads % WARP != 0) {
        stuck("values are exchanged in a block that is not whole warps");
    }
    b.given[turn][t] = value;
    wait_as(FOR_WARP);
    return b.given[turn][t / WARP * WARP + from];
}

static void thread_main(void) {
#ifdef CHECKED_STACKS
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &bytes);
    if (b.from_host) { /* the first thread of a block learns where the host's stack is */
        b.from_host = false;
        b.host_stack = bottom;
        b.host_bytes = bytes;
    }
#endif
    b.run(b.kernel);
    const unsigned t = b.current;
    b.state[t] = DONE;
    b.n_done++;
    b.n_left_warp[t / WARP]++;
    if (b.n_at_block > 0 && b.n_at_block == b.n_threads - b.n_done) { /* who has returned is not waited for */
        b.n_at_block = 0;
        release(FOR_BLOCK, 0, b.n_threads);
    }
    next(&b.threads[t], true);
    abort(); /* nobody comes back here */
}

static void run_block(void) {
    b.n_ready = b.n_done = b.n_at_block = 0;
    for (unsigned t = 0; t < b.n_threads; t++) {
        b.state[t] = RUNNING;
        b.turn[t] = 0;
        b.n_at_warp[t / WARP] = b.n_left_warp[t / WARP] = 0;
        b.ready[b.n_ready++] = t;
        char *stack = b.stacks + t * STACK_BYTES;
#ifdef CHECKED_STACKS
        __asan_unpoison_memory_region(stack, STACK_BYTES); /* frames of a block before, which never returned */
#endif
        prepare(&b.threads[t], stack, STACK_BYTES, thread_main);
    }
    b.deep = random_below(2);
    b.from_host = true;
    next(&b.host, false);
}

void emulated_launch(dim3 grid, dim3 block, size_t shared, void (*run)(void *), void *kernel) {
    const unsigned n = block.x * block.y * block.z;
    if (n < 1 || n > MOST_THREADS || grid.y > 65535 || grid.z > 65535 || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
        shared > 48 * 1024) {
        fprintf(stderr, "emulated GPU: a launch of (%u, %u, %u) blocks of %u threads with %zu bytes of shared memory\n",
                grid.x, grid.y, grid.z, n, shared);
        abort();
    }
    if (!b.stacks) { /* kept for the life of the program; pages that are not touched cost nothing */
        b.stacks = (char *)mmap(NULL, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (b.stacks == (char *)MAP_FAILED) {
            abort();
        }
    }
    if (b.seed != emulated_gpu.seed) {
        b.random = b.seed = emulated_gpu.seed;
    }
    b.n_threads = n;
    b.run = run;
    b.kernel = kernel;
    char *memory = (char *)aligned_alloc(16, (shared + 15) / 16 * 16 + 16);
    emulated_place.shared = memory;
    emulated_place.block_size = block;
    emulated_place.grid_size = grid;
    const size_t n_blocks = (size_t)grid.x * grid.y * grid.z;
    const size_t first = emulated_gpu.seed ? random_below((unsigned)n_blocks) : 0;
    for (size_t i = 0; i < n_blocks; i++) { /* from a random one on, backwards: blocks must not build on each other */
        const size_t at = (first + n_blocks - i) % n_blocks;
        memset(memory, 0xff, shared);
        emulated_place.block =
            dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
        run_block();
    }
    free(memory);
}
