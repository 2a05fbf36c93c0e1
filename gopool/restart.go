// SPDX-License-Identifier: MIT

package gopool

import "time"

// Limits of the restart guard. A worker that ends before it is ready is a failed start.
const (
	// maxFailedStarts in a row, with no worker alive that ever was ready, break the pool.
	// Three tells a broken program from bad luck without making the user wait.
	maxFailedStarts = 3
	// maxKilledStarts is the same for starts that SIGKILL or SIGTERM ended: whoever kills at
	// random, the kernel short of memory included, says nothing about the program. With the
	// pauses between them they take a second and a half.
	maxKilledStarts = 6
	firstBackoff    = 50 * time.Millisecond
	maxBackoff      = 5 * time.Second
)

// restartGuard counts starts that failed in a row. It has no clock: it says how long to wait,
// and who starts the next worker does the waiting.
type restartGuard struct {
	failed int // starts that failed in a row, by themselves
	killed int // and those that somebody killed
	idle   int // workers in a row that came up and ended without having done a task
}

func (g *restartGuard) succeeded()   { g.failed, g.killed = 0, 0 }
func (g *restartGuard) worked()      { g.idle = 0 }
func (g *restartGuard) startFailed() { g.failed++ }
func (g *restartGuard) idled()       { g.idle++ }

// wasKilled says that somebody ended the process, which did nothing wrong by itself.
func wasKilled(exit ExitStatus) bool {
	const sigterm, sigkill = 15, 9
	return exit.Known && (exit.Code == -sigkill || exit.Code == -sigterm)
}

func (g *restartGuard) startKilled() { g.failed, g.killed = g.failed-1, g.killed+1 }
func (g *restartGuard) exhausted() bool {
	return g.failed >= maxFailedStarts || g.killed >= maxKilledStarts
}

// backoff is the pause before the next start: none as long as starts succeed, then doubling. One
// idle death is an accident; workers that go on dying idle are replaced ever more slowly, but they
// don't break the pool.
func (g *restartGuard) backoff() time.Duration {
	bad := max(g.failed+g.killed, g.idle-1)
	if bad <= 0 {
		return 0
	}
	pause := firstBackoff
	for i := 1; i < bad && pause < maxBackoff; i++ {
		pause *= 2
	}
	return min(pause, maxBackoff)
}
