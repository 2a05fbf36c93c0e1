// SPDX-License-Identifier: MIT
//
// What a worker asks of the kernel when it starts and when it sleeps. In Python each of these is a
// handful of calls, and a forked worker copies the pages that each touches.

#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef F_SETSIG
#define F_SETSIG 10  // Linux's number; C libraries have it under _GNU_SOURCE only
#endif

enum { FRAME_SIZE = 65536 };  // MAX_FRAME in frame.py

static PyObject *os_error(void) { return PyErr_SetFromErrno(PyExc_OSError); }

static int raise_errno(void) {
    os_error();
    return -1;
}

// An int argument that is a descriptor; -1 with an exception set.
static int as_fd(PyObject *arg) {
    long fd = PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return -1;
    if (fd < 0 || fd > INT_MAX) {
        errno = EBADF;
        return raise_errno();
    }
    return (int)fd;
}

// Have the kernel send this process SIGKILL when the other end of a pipe is closed.
static int arm(int own) {
    return fcntl(own, F_SETOWN, getpid()) < 0 || fcntl(own, F_SETSIG, SIGKILL) < 0 ||
                   fcntl(own, F_SETFL, O_NONBLOCK | O_ASYNC) < 0
               ? -1
               : 0;
}

static PyObject *system_die_with(PyObject *Py_UNUSED(module), PyObject *arg) {
    int fd = as_fd(arg);
    if (fd < 0)
        return NULL;
    char path[32], byte;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0)
        own = fd;
    else
        close(fd);
    if (arm(own) < 0)
        return os_error();
    ssize_t size = read(own, &byte, 1);
    if (size == 0)
        kill(getpid(), SIGKILL);  // it was closed before
    else if (size < 0 && errno != EAGAIN)
        return os_error();
    Py_RETURN_NONE;
}

// What this thread leaves out of its forks, and what its children do first. All of it happens within
// fork(): no other thread forks meanwhile (_fork.py), and nothing can be cut short.
enum { MOST_SIGNALS = 8 };

static __thread struct {
    void *first;  // of memory that reads as zero in children
    size_t size;  // 0: nothing is left out
    int hidden;
    int count;
    struct {
        int number, ignored;
        void (*handler)(int);
    } signals[MOST_SIGNALS];
} forks;

static void (*handler_of(int number))(int) {
    struct sigaction action;
    return sigaction(number, NULL, &action) < 0 ? SIG_ERR : action.sa_handler;
}

static void before_fork(void) {
    forks.hidden = forks.size && madvise(forks.first, forks.size, MADV_WIPEONFORK) == 0;
}

static void after_fork(void) {
    if (forks.hidden)
        madvise(forks.first, forks.size, MADV_KEEPONFORK);
    forks.hidden = 0;
}

static void after_fork_in_child(void) {
    for (int i = 0; forks.hidden && i < forks.count; i++) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = forks.signals[i].ignored ? SIG_IGN : SIG_DFL;
        if (handler_of(forks.signals[i].number) == forks.signals[i].handler)
            sigaction(forks.signals[i].number, &action, NULL);
    }
    memset(&forks, 0, sizeof forks);
}

static PyObject *system_leave_out_of_forks(PyObject *Py_UNUSED(module), PyObject *const *args,
                                           Py_ssize_t count) {
    static int registered = 0;
    if (!registered && pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0)
        return PyErr_NoMemory();
    registered = 1;
    memset(&forks, 0, sizeof forks);
    if (count == 0)
        Py_RETURN_NONE;
    if (count % 2 != 0 || count / 2 - 1 > MOST_SIGNALS) {
        PyErr_SetString(PyExc_TypeError,
                        "leave_out_of_forks() takes first, size, and up to 8 numbers and actions");
        return NULL;
    }
    forks.first = PyLong_AsVoidPtr(args[0]);
    size_t size = PyLong_AsSize_t(args[1]);
    if (PyErr_Occurred())
        return NULL;
    for (Py_ssize_t i = 1; i < count / 2; i++) {
        long number = PyLong_AsLong(args[2 * i]), ignored = PyLong_AsLong(args[2 * i + 1]);
        if (PyErr_Occurred())
            return NULL;
        forks.signals[forks.count].number = (int)number;
        forks.signals[forks.count].ignored = ignored != 0;
        forks.signals[forks.count++].handler = handler_of((int)number);
    }
    forks.size = size;
    Py_RETURN_NONE;
}

static PyObject *system_block(PyObject *Py_UNUSED(module), PyObject *arg) {
    int fd = as_fd(arg), nonblocking = 0;
    if (fd < 0)
        return NULL;
    if (ioctl(fd, FIONBIO, &nonblocking) < 0)
        return os_error();
    Py_RETURN_NONE;
}

static PyObject *system_send(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "send() takes fd, bytes");
        return NULL;
    }
    int fd = as_fd(args[0]);
    if (fd < 0)
        return NULL;
    ssize_t size;
    do {
        Py_BEGIN_ALLOW_THREADS
        size = send(fd, PyBytes_AS_STRING(args[1]), (size_t)PyBytes_GET_SIZE(args[1]), MSG_NOSIGNAL);
        Py_END_ALLOW_THREADS
        if (size < 0 && (errno != EINTR || PyErr_CheckSignals() < 0))
            return PyErr_Occurred() ? NULL : os_error();
    } while (size < 0);
    Py_RETURN_NONE;
}

// The first descriptor that came with a message; -1: none.
static int descriptor_of(struct msghdr *message) {
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS &&
            each->cmsg_len >= CMSG_LEN(sizeof(int))) {
            int fd;
            memcpy(&fd, CMSG_DATA(each), sizeof fd);
            return fd;
        }
    }
    return -1;
}

static PyObject *system_receive(PyObject *Py_UNUSED(module), PyObject *arg) {
    int fd = as_fd(arg);
    if (fd < 0)
        return NULL;
    static char data[FRAME_SIZE];  // one thread receives, and its stack may be a small one
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec vector = {data, sizeof data};
    struct msghdr message;
    ssize_t size;
    do {
        // Room for one descriptor and no more: CMSG_SPACE has some to spare.
        message = (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = CMSG_LEN(sizeof(int))};
        Py_BEGIN_ALLOW_THREADS
        size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        Py_END_ALLOW_THREADS
        if (size < 0 && (errno != EINTR || PyErr_CheckSignals() < 0))
            return PyErr_Occurred() ? NULL : os_error();
    } while (size < 0);
    int its_fd = descriptor_of(&message);
    if (message.msg_flags & MSG_TRUNC)
        size = 0;
    PyObject *result = Py_BuildValue("(y#iO)", data, (Py_ssize_t)size, its_fd,
                                     message.msg_flags & MSG_CTRUNC ? Py_True : Py_False);
    if (result == NULL && its_fd >= 0)
        close(its_fd);
    return result;
}
