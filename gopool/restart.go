// SPDX-License-Identifier: MIT

package gopool

import "time"

// Limits of the restart guard. A worker that ends before it is ready is a failed start.
const (
	// maxFailedStarts in a row, with no worker alive that ever was ready, break the pool.
	// Three tells a broken program from bad luck without making the user wait.
	maxFailedStarts = 3
	firstBackoff    = 50 * time.Millisecond
	maxBackoff      = 5 * time.Second
)

// restartGuard counts starts that failed in a row. It has no clock: it says how long to wait,
// and who starts the next worker does the waiting.
type restartGuard struct{ failed int }

func (g *restartGuard) succeeded()      { g.failed = 0 }
func (g *restartGuard) startFailed()    { g.failed++ }
func (g *restartGuard) exhausted() bool { return g.failed >= maxFailedStarts }

// backoff is the pause before the next start: none as long as starts succeed, then doubling.
func (g *restartGuard) backoff() time.Duration {
	if g.failed == 0 {
		return 0
	}
	pause := firstBackoff
	for i := 1; i < g.failed && pause < maxBackoff; i++ {
		pause *= 2
	}
	return min(pause, maxBackoff)
}
