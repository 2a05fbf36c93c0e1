// SPDX-License-Identifier: MIT

#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#define RELAXED_NS 1000000L  // the monitor's timer slack

typedef void *(*routine)(void *);

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, routine start,
                          void *argument);

// The first thread starts Go; of all others, which have another routine in common, the monitor is
// the first. In an executable (a Go test) no thread starts Go, and none is relaxed. Nothing else in
// this library makes threads.
static _Atomic(routine) starts_go;
static atomic_flag has_monitor = ATOMIC_FLAG_INIT;
static atomic_long usual_ns;  // the slack of the thread that loaded Go

static int create(long slack_ns, pthread_t *thread, const pthread_attr_t *attributes, routine start,
                  void *argument) {
    long own_ns = prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L);
    int differs = own_ns > 0 && slack_ns > 0 && own_ns != slack_ns;
    if (differs)
        prctl(PR_SET_TIMERSLACK, slack_ns, 0L, 0L, 0L);
    int error = __real_pthread_create(thread, attributes, start, argument);
    if (differs)
        prctl(PR_SET_TIMERSLACK, own_ns, 0L, 0L, 0L);
    return error;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, routine start,
                          void *argument) {
    routine none = NULL;
    if (atomic_compare_exchange_strong(&starts_go, &none, start))
        atomic_store(&usual_ns, (long)prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L));
    if (start == atomic_load(&starts_go) || atomic_flag_test_and_set(&has_monitor))
        // The monitor makes threads as well, and they are not to be like it.
        return create(atomic_load(&usual_ns), thread, attributes, start, argument);
    int error = create(RELAXED_NS, thread, attributes, start, argument);
    if (error != 0)
        atomic_flag_clear(&has_monitor);  // it is made again
    return error;
}
