// SPDX-License-Identifier: MIT

package pyapi

import (
	"time"

	"gopool/gopool"
)

// PoolLimits sets what bounds a pool's workers, before the first is added: how many there should be,
// bytes of memory beyond which one is ended and beyond which it retires, milliseconds that one may
// live, may be idle, and may take to become ready, milliseconds between SIGTERM and SIGKILL (0 each:
// no bound), whether workers always end with the processes below them, and how many unread outcomes
// may keep a descriptor.
func PoolLimits(
	pool, size, memoryHard, memorySoft, maxAge, idle, start, grace, tree, regions int,
) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if min(size, regions) < 1 || min(memoryHard, memorySoft, maxAge, idle, start, grace) < 0 {
		return codeBadArgument
	}
	wires.Pool.SetLimits(gopool.Limits{Size: size, MemoryHard: uint64(memoryHard),
		MemorySoft: uint64(memorySoft), MaxAge: milliseconds(maxAge),
		IdleTimeout: milliseconds(idle), StartTimeout: milliseconds(start),
		Grace: milliseconds(grace), Tree: tree != 0})
	wires.Outcomes.SetMaxRegions(regions)
	return 0
}

// PoolResize changes how many workers a pool should have; Python starts those that are missing.
func PoolResize(pool, size int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if size < 1 {
		return codeBadArgument
	}
	wires.Drain() // workers whose outcome lies in a lane are idle
	wires.Pool.Resize(size)
	wires.LookAgain()
	return 0
}

// OptionsAdd stores what tasks may ask for; the result names it in Submit. timeout and backoff are
// milliseconds (0: no timeout, no pause), retryOn is a gopool.RetryOn.
func OptionsAdd(pool, timeout, retries, retryOn, backoff int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	known := int(gopool.RetryLost | gopool.RetryTimeout | gopool.RetryError)
	if min(timeout, retries, retryOn, backoff) < 0 || retryOn > known {
		return codeBadArgument
	}
	return wires.Pool.AddOptions(gopool.Options{Timeout: milliseconds(timeout), Retries: retries,
		RetryOn: gopool.RetryOn(retryOn), Backoff: milliseconds(backoff)})
}

// JobCancel drops the tasks of a job, of which so many are unsettled. The result is how many go on
// running; where the only one does, nothing was changed.
func JobCancel(pool, job, tasks, terminate int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	return wires.Cancel(uint64(job), tasks, terminate != 0)
}

// JobPlace says where the tasks of a job are: a gopool.TaskPlace.
func JobPlace(pool, job int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	return int(wires.Place(uint64(job)))
}

// milliseconds is a duration; one too long to be told from for ever is a century.
func milliseconds(n int) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return min(time.Duration(min(n, int(century/time.Millisecond)))*time.Millisecond, century)
}
