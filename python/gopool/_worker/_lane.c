// SPDX-License-Identifier: MIT
//
// The worker's side of a lane: shared memory in which tasks come and outcomes go without a system
// call. Layout and rules: bridge/PROTOCOL.md, section 8. Twin: bridge/lane_linux.go. And its messages,
// which go by the socket as well: _message.h; and its system calls: _system.h.
//
// It is C because two processes own parts of one word: claiming a task and taking it back must be
// one atomic step each, which Python can't express. Nothing here is Go's: a worker never loads that.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "_message.h"
#include "_system.h"

enum {
    AT_NOTE = 0,      // u64: number of the task begun last
    AT_QUEUE = 64,    // u64: tasks ever claimed (low half), tasks ever put in (high half)
    AT_ASLEEP = 128,  // u32: AWAKE, DOZING, or what Go makes of that when it wakes this worker
    AT_LISTEN = 192,  // u32: what the parent wants to be told, LISTEN_...
    AT_COMMIT = 256,  // u64: bytes of outcomes ever written
    AT_READ = 320,    // u64: bytes of outcomes ever read
    AT_BEGAN = 384,   // u64: when the task that runs was begun, in ns; 0: none runs
    AT_SLOTS = 512,   // SLOTS times {u64 number, u32 offset, u32 size}
    SLOTS = 128,
    AT_TASKS = 4096,
    TASKS_SIZE = 65536,
    AT_OUTCOMES = AT_TASKS + TASKS_SIZE,
    OUTCOMES_SIZE = 65536,
    LANE_SIZE = AT_OUTCOMES + OUTCOMES_SIZE,
    MAX_BODY = 16384,     // bytes of one message's body; larger ones go through the socket
    RECORD_HEADER = 20,   // u64 began, u64 ended, u32 size of the body
    DONE_HEADER = 17,     // bytes of a Done before its payload, at most
};

enum { AWAKE = 0, DOZING = 1 };

// The collector sleeps until there is an outcome; tasks are queued, so Go wants to know of an end.
enum { LISTEN_COLLECTOR = 1, LISTEN_HUNGRY = 2 };

#define PAD UINT64_MAX  // instead of `began`: the next record begins at the start of the ring

// How long a worker looks for its next task before it sleeps, in nanoseconds. What a look costs is
// about what being woken costs, so it is kept up only as long as looking pays. The twin of this rule
// is bridge/spin_linux.go.
enum { SPIN_MOST = 50000, SPIN_LEAST = 2500, SPIN_AGAIN_AFTER = 64 };

typedef struct {
    PyObject_HEAD
    unsigned char *memory;
    int bell_fd;    // the eventfd that wakes the collector
    dev_t bell_dev; // and what it is: a task that closes it may open a file of this number
    ino_t bell_ino;
    uint64_t began;
    long spin;      // nanoseconds that the next look may take; 0: none
    long unspun;    // looks left out since it paid last
    int may_spin;   // more than one processor
} Lane;

static inline _Atomic uint64_t *word64(Lane *lane, size_t at) {
    return (_Atomic uint64_t *)(lane->memory + at);
}

static inline _Atomic uint32_t *word32(Lane *lane, size_t at) {
    return (_Atomic uint32_t *)(lane->memory + at);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int queue_is_empty(Lane *lane) {
    uint64_t queue = atomic_load(word64(lane, AT_QUEUE));
    return (uint32_t)queue == (uint32_t)(queue >> 32);
}

// Look for a task for a while. Runs without the interpreter lock.
static int look(Lane *lane) {
    uint64_t end = now_ns() + (uint64_t)lane->spin;
    do {
        for (int i = 0; i < 16; i++) {
            if (!queue_is_empty(lane))
                return 1;
            relax();
        }
        sched_yield();  // whoever else wants this processor goes first
    } while (now_ns() < end);
    return 0;
}

// As look(), and remember whether it was worth it.
static int look_if_it_pays(Lane *lane) {
    if (!lane->may_spin)
        return 0;
    if (lane->spin == 0) {
        if (++lane->unspun < SPIN_AGAIN_AFTER)
            return 0;
        lane->spin = SPIN_LEAST;
    }
    lane->unspun = 0;
    int found = look(lane);
    if (found)
        lane->spin = lane->spin >= SPIN_MOST / 2 ? SPIN_MOST : lane->spin * 2;
    else
        lane->spin = lane->spin <= SPIN_LEAST ? 0 : lane->spin / 2;
    return found;
}

// Own the next task; -1: there is none.
static int take(Lane *lane) {
    _Atomic uint64_t *word = word64(lane, AT_QUEUE);
    uint64_t queue = atomic_load(word), next;
    do {
        uint32_t head = (uint32_t)queue, tail = (uint32_t)(queue >> 32);
        if (head == tail)
            return -1;
        next = (uint64_t)tail << 32 | (uint32_t)(head + 1);
    } while (!atomic_compare_exchange_weak(word, &queue, next));
    return (int)((uint32_t)queue % SLOTS);
}

// Write down, for the parent, that a task begins.
static void begin(Lane *lane, uint64_t number) {
    lane->began = now_ns();
    atomic_store_explicit(word64(lane, AT_NOTE), number, memory_order_relaxed);
    atomic_store_explicit(word64(lane, AT_BEGAN), lane->began, memory_order_release);
}

static int is_closed(Lane *lane) {
    if (lane->memory != NULL)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the lane is closed");
    return 1;
}

static PyObject *lane_claim(Lane *lane, PyObject *Py_UNUSED(ignored)) {
    if (is_closed(lane))
        return NULL;
    // The outcome of the task before may have gone another way than through publish().
    atomic_store_explicit(word64(lane, AT_BEGAN), 0, memory_order_relaxed);
    if (queue_is_empty(lane)) {
        int found;
        Py_BEGIN_ALLOW_THREADS
        found = look_if_it_pays(lane);
        Py_END_ALLOW_THREADS
        if (!found)
            Py_RETURN_NONE;
    }
    int index = take(lane);
    if (index < 0)
        Py_RETURN_NONE;  // taken back meanwhile
    struct { uint64_t number; uint32_t offset, size; } slot;
    memcpy(&slot, lane->memory + AT_SLOTS + (size_t)index * sizeof slot, sizeof slot);
    begin(lane, slot.number);
    if (slot.size > MAX_BODY || slot.offset > TASKS_SIZE - slot.size) {
        PyErr_Format(PyExc_RuntimeError, "lane: task %llu lies at %u, %u bytes: outside of it",
                     (unsigned long long)slot.number, slot.offset, slot.size);
        return NULL;
    }
    Bytes body = {lane->memory + AT_TASKS + slot.offset, NULL};
    body.end = body.at + slot.size;
    PyObject *task = decode_task(body, 0);
    return task == Py_None ? (Py_DECREF(task), copy(body)) : task;
}

// Wake the collector if it sleeps until there is an outcome.
static int tell(Lane *lane) {
    _Atomic uint32_t *listen = word32(lane, AT_LISTEN);
    if (!(atomic_load(listen) & LISTEN_COLLECTOR))
        return 0;
    if (!(atomic_fetch_and(listen, ~(uint32_t)LISTEN_COLLECTOR) & LISTEN_COLLECTOR))
        return 0;
    struct stat status;
    if (fstat(lane->bell_fd, &status) < 0)
        return raise_errno();
    if (status.st_dev != lane->bell_dev || status.st_ino != lane->bell_ino) {
        errno = EBADF;
        return raise_errno();
    }
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(lane->bell_fd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
    // A counter that is full wakes as well.
    return written < 0 && errno != EAGAIN ? raise_errno() : 0;
}

// Put a record with a Done into the ring; 0: it has no room.
static int leave(Lane *lane, uint64_t number, uint64_t status, const void *payload, uint64_t size) {
    unsigned char header[DONE_HEADER] = {0x94, DONE}, *end = write_uint(header + 2, number);
    end = write_bin_header(write_uint(end, status), size);
    uint64_t header_size = (uint64_t)(end - header), body = header_size + size;
    if (body > MAX_BODY)
        return 0;
    uint64_t need = (RECORD_HEADER + body + 7) & ~(uint64_t)7;
    uint64_t commit = atomic_load_explicit(word64(lane, AT_COMMIT), memory_order_relaxed);
    uint64_t read = atomic_load_explicit(word64(lane, AT_READ), memory_order_acquire);
    uint64_t at = commit % OUTCOMES_SIZE;
    uint64_t skipped = OUTCOMES_SIZE - at < need ? OUTCOMES_SIZE - at : 0;
    if (OUTCOMES_SIZE - (commit - read) < need + skipped)
        return 0;
    unsigned char *ring = lane->memory + AT_OUTCOMES;
    if (skipped) {
        uint64_t pad = PAD;
        memcpy(ring + at, &pad, sizeof pad);
        at = 0;
    }
    uint64_t times[2] = {lane->began, now_ns()};
    uint32_t length = (uint32_t)body;
    memcpy(ring + at, times, sizeof times);
    memcpy(ring + at + sizeof times, &length, sizeof length);
    memcpy(ring + at + RECORD_HEADER, header, header_size);
    memcpy(ring + at + RECORD_HEADER + header_size, payload, size);
    atomic_store_explicit(word64(lane, AT_BEGAN), 0, memory_order_relaxed);
    // The strongest order, since the look at AT_LISTEN must come after it.
    atomic_store(word64(lane, AT_COMMIT), commit + skipped + need);
    return 1;
}

static PyObject *lane_publish(Lane *lane, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "publish() takes 3 arguments, not %zd", count);
        return NULL;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(args[0]);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    unsigned long status = PyLong_AsUnsignedLong(args[1]);
    if (status == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (number == 0 || status > MAX_STATUS) {
        PyErr_Format(PyExc_ValueError, "no Done has task %llu and status %lu", number, status);
        return NULL;
    }
    Py_buffer payload;
    if (is_closed(lane) || PyObject_GetBuffer(args[2], &payload, PyBUF_SIMPLE) < 0)
        return NULL;
    int left = leave(lane, number, status, payload.buf, (uint64_t)payload.len);
    PyBuffer_Release(&payload);
    if (!left)
        Py_RETURN_FALSE;
    if (tell(lane) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *lane_doze(Lane *lane, PyObject *Py_UNUSED(ignored)) {
    if (is_closed(lane))
        return NULL;
    atomic_store(word32(lane, AT_ASLEEP), DOZING);
    if (!queue_is_empty(lane)) {
        atomic_store(word32(lane, AT_ASLEEP), AWAKE);
        return PyLong_FromLong(0);
    }
    int hungry = (atomic_load(word32(lane, AT_LISTEN)) & LISTEN_HUNGRY) != 0;
    return PyLong_FromLong(hungry ? 2 : 1);
}

static PyObject *lane_rouse(Lane *lane, PyObject *Py_UNUSED(ignored)) {
    if (is_closed(lane))
        return NULL;
    atomic_store(word32(lane, AT_ASLEEP), AWAKE);
    Py_RETURN_NONE;
}

static PyObject *lane_note(Lane *lane, PyObject *number) {
    if (is_closed(lane))
        return NULL;
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (value == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    begin(lane, value);
    Py_RETURN_NONE;
}

// Fill in a new Lane; -1: there is an exception. Its memory is NULL until all is well.
static int open_lane(Lane *lane, int memory_fd, int bell_fd) {
    struct stat status;
    if (fstat(bell_fd, &status) < 0)
        return raise_errno();
    lane->bell_fd = bell_fd;
    lane->bell_dev = status.st_dev;
    lane->bell_ino = status.st_ino;
    if (fstat(memory_fd, &status) < 0)
        return raise_errno();
    if (status.st_size < LANE_SIZE) {  // to touch what is beyond the end would be SIGBUS
        PyErr_Format(PyExc_ValueError, "a lane has %d bytes, this memory %lld", (int)LANE_SIZE,
                     (long long)status.st_size);
        return -1;
    }
    void *memory = mmap(NULL, LANE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (memory == MAP_FAILED)
        return raise_errno();
    cpu_set_t processors;
    lane->may_spin = sched_getaffinity(0, sizeof processors, &processors) != 0 ||
                     CPU_COUNT(&processors) > 1;
    // Its first task takes longer to come than a look pays: the parent starts other workers.
    lane->spin = 0;
    lane->unspun = SPIN_AGAIN_AFTER - 2;
    lane->memory = memory;
    return 0;
}

static PyObject *lane_close(Lane *lane, PyObject *Py_UNUSED(ignored)) {
    if (lane->memory != NULL)
        munmap(lane->memory, LANE_SIZE);
    lane->memory = NULL;
    Py_RETURN_NONE;
}

static void lane_dealloc(Lane *lane) {
    PyTypeObject *type = Py_TYPE(lane);
    if (lane->memory != NULL)
        munmap(lane->memory, LANE_SIZE);
    type->tp_free((PyObject *)lane);
    Py_DECREF(type);
}

// Not __init__: a Lane without memory must not be within anybody's reach.
static PyObject *lane_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    static char *names[] = {"memory_fd", "bell_fd", NULL};
    int memory_fd, bell_fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "ii", names, &memory_fd, &bell_fd))
        return NULL;
    Lane *lane = (Lane *)type->tp_alloc(type, 0);
    if (lane != NULL && open_lane(lane, memory_fd, bell_fd) < 0)
        Py_CLEAR(lane);
    return (PyObject *)lane;
}

static PyObject *identify(PyObject *Py_UNUSED(module), PyObject *arg) {
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct stat status;
    if (fstat((int)fd, &status) < 0) {
        raise_errno();
        return NULL;
    }
    return Py_BuildValue("(KK)", (unsigned long long)status.st_dev,
                         (unsigned long long)status.st_ino);
}

static PyObject *is_still(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    unsigned long long numbers[3];
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "is_still() takes fd, dev, ino");
        return NULL;
    }
    for (int i = 0; i < 3; i++) {
        numbers[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (numbers[i] == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
    }
    struct stat status;
    return PyBool_FromLong(fstat((int)numbers[0], &status) == 0 && status.st_dev == numbers[1] &&
                           status.st_ino == numbers[2]);
}

static PyMethodDef lane_methods[] = {
    {"claim", (PyCFunction)lane_claim, METH_NOARGS,
     "claim() -> tuple | bytes | None: begin the next task; None: there is none.\n\n"
     "(task, mode, function, payload, definition or None), or the message's bytes where it is not\n"
     "written as Go does. Looks for one for up to 50 us before it says None, as long as that pays."},
    {"publish", (PyCFunction)(void (*)(void))lane_publish, METH_FASTCALL,
     "publish(task, status, payload) -> bool: leave an outcome; False: no room, send it another way."
     "\n\nWakes whoever sleeps until there is one. OSError where the descriptor for it is gone."},
    {"doze", (PyCFunction)lane_doze, METH_NOARGS,
     "doze() -> int: announce sleep. 0: don't, a task has come; 1: sleep; 2: tell Go, then sleep."},
    {"rouse", (PyCFunction)lane_rouse, METH_NOARGS, "rouse(): sleep is over."},
    {"note", (PyCFunction)lane_note, METH_O,
     "note(number): write down that a task which came another way begins."},
    {"close", (PyCFunction)lane_close, METH_NOARGS,
     "close(): unmap it, in a child that is no worker; all else is a ValueError then."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lane_slots[] = {
    {Py_tp_doc, "Lane(memory_fd, bell_fd): the worker's side of a lane.\n\n"
                "memory_fd: a file of LANE_SIZE bytes or more that Go maps too; it is mapped and not\n"
                "kept. bell_fd: the eventfd that wakes the collector. OSError where it can't be\n"
                "mapped, ValueError where it is too small. Not to be used by two threads at once."},
    {Py_tp_new, lane_new},
    {Py_tp_dealloc, lane_dealloc},
    {Py_tp_methods, lane_methods},
    {0, NULL},
};

static PyType_Spec lane_spec = {
    .name = "gopool._worker._lane.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lane_slots,
};

static int lane_exec(PyObject *module) {
    PyObject *type = PyType_FromSpec(&lane_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Lane", type) < 0 ||
                 PyModule_AddIntConstant(module, "LANE_SIZE", LANE_SIZE) < 0 ||
                 PyModule_AddIntConstant(module, "MAX_BODY", MAX_BODY) < 0;
    Py_DECREF(type);
    return failed ? -1 : 0;
}

static PyMethodDef module_methods[] = {
    {"decode_task", (PyCFunction)(void (*)(void))message_decode_task, METH_FASTCALL,
     "decode_task(body, descriptor) -> tuple | None: the fields of a Task.\n\n"
     "(task, mode, function, payload or the size of its region, definition or None). None: it is\n"
     "none, or not written as Go does. descriptor: whether one came with it."},
    {"encode", (PyCFunction)(void (*)(void))message_encode, METH_FASTCALL,
     "encode(*elements) -> bytes: a message's body, of up to 15 int >= 0, str and bytes (a\n"
     "contiguous memoryview will do)."},
    {"block", system_block, METH_O, "block(fd): whoever uses this socket waits, whatever it was."},
    {"die_with", system_die_with, METH_O,
     "die_with(fd): be killed when the other end of the pipe closes, at once if it has already.\n\n"
     "fd is closed; its new description stays open as long as the process. Without /proc the\n"
     "inherited description is armed: then only the sibling that did so last is protected."},
    {"receive", system_receive, METH_O,
     "receive(fd) -> (bytes, descriptor or -1, whether one was lost): the next message of a socket.\n\n"
     "b'' where the other end is closed, or where it was larger than a frame."},
    {"send", (PyCFunction)(void (*)(void))system_send, METH_FASTCALL,
     "send(fd, bytes): send one message; waits for room."},
    {"leave_out_of_forks", (PyCFunction)(void (*)(void))system_leave_out_of_forks, METH_FASTCALL,
     "leave_out_of_forks(first, size, number, action, ...): for the forks of this thread.\n\n"
     "The memory reads as zero in the children, and where that can be done they begin by setting\n"
     "these signals: to SIG_DFL or SIG_IGN, unless somebody has changed the handler meanwhile. Each\n"
     "call takes the place of the one before; without arguments nothing is left out."},
    {"identify", identify, METH_O,
     "identify(fd) -> (dev, ino): what is open under this number. OSError where nothing is."},
    {"is_still", (PyCFunction)(void (*)(void))is_still, METH_FASTCALL,
     "is_still(fd, dev, ino) -> bool: whether the same is. A tenth of what os.fstat() takes."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, lane_exec},
    {0, NULL},
};

static struct PyModuleDef lane_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gopool._worker._lane",
    .m_doc = "The worker's side of a lane, and of messages (bridge/PROTOCOL.md, sections 3 to 8).",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__lane(void) { return PyModuleDef_Init(&lane_module); }
