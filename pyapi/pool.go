// SPDX-License-Identifier: MIT

package pyapi

import (
	"time"

	"gopool/bridge"
	"gopool/gopool"
)

var pools handles[*bridge.PoolWires]

// PoolOpen makes a pool; the result is its handle. ringFD holds ringSize bytes (a multiple of
// eight) for outcomes, wakeFD and eventFD are eventfds; all stay Python's until PoolRelease.
// sendAhead is a gopool.SendAhead.
func PoolOpen(ringFD, ringSize, wakeFD, eventFD, maxTasks, sendAhead int) int {
	ahead := gopool.SendAhead(sendAhead)
	if ringSize < 4*bridge.MaxFrame || ringSize%8 != 0 || maxTasks < 0 ||
		ahead < gopool.AheadAuto || ahead > gopool.AheadAlways {
		return codeBadArgument
	}
	b, err := board()
	if err != nil {
		return codeOf(err)
	}
	cfg := gopool.Config{MaxTasks: maxTasks, SendAhead: ahead}
	wires, err := b.OpenPool(cfg, ringFD, ringSize, wakeFD, eventFD)
	if err != nil {
		return codeOf(err)
	}
	return pools.put(wires)
}

// WorkerAdd takes a started worker into the pool; the result is its number. The descriptors stay
// Python's, to be closed after WorkerReaped. pidfd is -1 where the process is gone already, lane
// where the worker has none.
func WorkerAdd(pool, pid, socket, peer, pidfd, lane int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	b, err := board()
	if err != nil {
		return codeOf(err)
	}
	ends := bridge.Endpoints{Socket: socket, Peer: peer, PIDFD: pidfd, Lane: lane}
	return int(b.Attach(wires, pid, ends))
}

// Verdicts of WorkerReaped.
const (
	noReplacement = 0
	replaceAtOnce = 1 // larger: replace, after that many milliseconds less one
)

// WorkerReaped records the exit code of an ended worker (known is 0 where nobody can say). The
// result says whether another worker is wanted: 0 no, else 1 plus the pause in milliseconds.
func WorkerReaped(pool, worker, exitCode, known int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	exit := gopool.ExitStatus{Code: exitCode, Known: known != 0}
	verdict, err := wires.Reaped(gopool.WorkerID(worker), exit)
	if err != nil {
		return codeOf(err)
	}
	return verdictNumber(verdict)
}

// WorkerBegan records which task an ended worker had begun last (0: none), before WorkerReaped.
func WorkerBegan(pool, worker, task int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	return codeOf(wires.Pool.Began(gopool.WorkerID(worker), gopool.TaskID(task)))
}

// WorkerAsked is 1 for a worker that was asked to go, whose end is no crash; 0 for any other.
func WorkerAsked(pool, worker int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if wires.Pool.Asked(gopool.WorkerID(worker)) {
		return 1
	}
	return 0
}

// WorkerNotStarted records that a worker's process could not be started; the result is as
// WorkerReaped's.
func WorkerNotStarted(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	return verdictNumber(wires.Pool.NotStarted())
}

func verdictNumber(v gopool.Verdict) int {
	if !v.Replace {
		return noReplacement
	}
	return replaceAtOnce + int(v.After/time.Millisecond)
}

// NextExited returns the number of a worker whose process ended. 0: none, wait on eventFD; -1:
// none, and none will come; -2: instead, one more worker is asked for.
func NextExited(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	return wires.Events.Next()
}

// PoolClose says that no task will be submitted any more.
func PoolClose(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	wires.Pool.Close()
	return 0
}

// PoolTerminate drops all unsettled tasks and ends the workers, politely or by SIGTERM.
func PoolTerminate(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	wires.Terminate()
	return 0
}

// PoolKill sends SIGKILL to the workers that are still there. Python calls it when their time is
// over, which saves a timer here.
func PoolKill(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	wires.Pool.KillSurvivors()
	return 0
}

// PoolRelease forgets a pool whose last worker is gone; its descriptors may be closed then.
func PoolRelease(pool int) int {
	wires, err := pools.take(pool)
	if err != nil {
		return codeOf(err)
	}
	return codeOf(wires.Release())
}

// PoolCount is the number of pools that were opened and not released.
func PoolCount() int { return pools.len() }

// PoolStat returns a counter: 0 workers ever added, 1 tasks that returned, 2 that raised, 3 lost
// with their worker, 4 failed because the pool broke, 5 workers that crashed, 6 tasks unsettled,
// 7 bytes of their payload, 8 regions that they hold, 9 tasks no worker holds, 10 tasks cancelled,
// 11 cut short for their time, 12 runs after the first, 13 workers retired.
func PoolStat(pool, which int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	s := wires.Pool.Stats()
	tasks, bytes, regions := wires.Pool.Load()
	counters := [...]int{s.Workers, s.Values, s.Errors, s.Lost, s.Broken, s.Crashes, tasks,
		int(bytes), regions, wires.Pool.Queued(), s.Cancelled, s.Timeouts, s.Retries, s.Retired}
	if which < 0 || which >= len(counters) {
		return codeBadArgument
	}
	return counters[which]
}
