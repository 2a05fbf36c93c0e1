// SPDX-License-Identifier: MIT

package gopool

// Stats counts what happened in a pool since it was made.
type Stats struct {
	Workers int // workers ever added
	Values  int // tasks that returned
	Errors  int // tasks that ended with an exception, of the user's or of pickling
	Lost    int // tasks whose worker ended under them
	Broken  int // tasks that could not run: the pool broke, or they can't be sent
	Crashes int // workers that ended with a status other than 0 and were not asked to go

	Cancelled int // tasks that Cancel dropped or cut short
	Timeouts  int // tasks cut short for their time, retried ones included
	Retries   int // times that a task was run again
	Retired   int // workers that were asked to go by a limit or by Resize
}

// Stats returns a copy of the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (s *Stats) settled(status Status) {
	switch status {
	case StatusValue:
		s.Values++
	case StatusLost, StatusTimeout:
		s.Lost++
	case StatusCancelled:
		s.Cancelled++
	case StatusBroken, StatusRefused:
		s.Broken++
	default:
		s.Errors++
	}
}

func (s *Stats) exited(exit ExitStatus, w *worker) {
	if !w.asked && (!exit.Known || exit.Code != 0 || len(w.leases) > 0) {
		s.Crashes++
	}
}
