// SPDX-License-Identifier: MIT

#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>

enum {
    MONITOR = 1,            // which of the runtime's threads it is, after the one that starts Go
    RELAXED_NS = 1000000,   // its timer slack
};

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

static atomic_int made;      // how many threads; the first two one after the other
static atomic_long usual_ns; // the slack of the thread that loaded Go

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    int number = atomic_load(&made);
    long own = prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L);
    if (number == 0)
        atomic_store(&usual_ns, own);
    // The monitor makes threads as well, and they are not to be like it.
    long wanted = number == MONITOR ? RELAXED_NS : atomic_load(&usual_ns);
    int differs = own > 0 && wanted > 0 && own != wanted;
    if (differs)
        prctl(PR_SET_TIMERSLACK, wanted, 0L, 0L, 0L);
    int error = __real_pthread_create(thread, attributes, start, argument);
    if (differs)
        prctl(PR_SET_TIMERSLACK, own, 0L, 0L, 0L);
    if (error == 0)
        atomic_fetch_add(&made, 1);
    return error;
}
