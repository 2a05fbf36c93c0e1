// SPDX-License-Identifier: MIT

package gopool

import (
	"errors"
	"sync"
)

// ErrUnknownProcess is returned where a process's number was never given out or is forgotten.
var ErrUnknownProcess = errors.New("gopool: no such process")

// ProcessID names an adopted process, counted from 1.
type ProcessID uint32

// ProcessStats counts adopted processes.
type ProcessStats struct {
	Adopted int // ever
	Exited  int // their end was seen, reaped or not
	Failed  int // reaped with a status other than 0, or an unknown one
}

// Processes is the register of the processes that are not pool workers: what
// multiprocessing.Process started. Their end and their status are two facts here as well.
type Processes struct {
	mu    sync.Mutex
	live  map[ProcessID]*process
	last  ProcessID
	stats ProcessStats
}

type process struct {
	pid    int
	exited bool
}

// NewProcesses makes an empty register.
func NewProcesses() *Processes { return &Processes{live: make(map[ProcessID]*process)} }

// Adopt takes a started process into the register.
func (r *Processes) Adopt(pid int) ProcessID {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.live[r.last] = &process{pid: pid}
	r.stats.Adopted++
	return r.last
}

// Exited records that the process ended.
func (r *Processes) Exited(id ProcessID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.live[id]; ok {
		r.exited(p)
	}
}

// exited counts an end once: who waits for a process may reap it before its end was reported.
func (r *Processes) exited(p *process) {
	if !p.exited {
		p.exited = true
		r.stats.Exited++
	}
}

// Reaped records the exit status and forgets the process.
//
// Errors: ErrUnknownProcess.
func (r *Processes) Reaped(id ProcessID, exit ExitStatus) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.live[id]
	if !ok {
		return ErrUnknownProcess
	}
	delete(r.live, id)
	r.exited(p)
	if !exit.Known || exit.Code != 0 {
		r.stats.Failed++
	}
	return nil
}

// Stats returns a copy of the counters.
func (r *Processes) Stats() ProcessStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}
