// SPDX-License-Identifier: MIT

package gopool

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrUnknownChild is returned where a child's number was never given out or is forgotten.
var ErrUnknownChild = errors.New("gopool: no such child")

// Restart says after which ends a child is started again.
type Restart int

const (
	RestartNever     Restart = iota // whatever its end
	RestartOnFailure                // after any status but 0
	RestartAlways
)

// SupervisorConfig is what a Supervisor is made with.
type SupervisorConfig struct {
	Intensity int           // restarts within Period that are borne; one more is given up
	Period    time.Duration // see Intensity; also how long a child must run to count as well
	Backoff   time.Duration // pause before the first restart of a child; doubles with each
	Longest   time.Duration // bound of the doubling
	Now       func() time.Time
	Jitter    func() float64 // in [0, 1)
}

// Supervisor decides when long-running processes are started again, in the tradition of Erlang's
// supervisors (one_for_one). It starts nothing and has no timer: it says how long to wait, and who
// starts the child does the waiting.
type Supervisor struct {
	cfg SupervisorConfig

	mu       sync.Mutex
	children map[int]*supervised
	last     int
	restarts []time.Time // of all children, within the last Period
	gaveUp   bool
}

type supervised struct {
	policy  Restart
	started time.Time
	bad     int // ends in a row after less than Period
}

// NewSupervisor makes a supervisor without children.
func NewSupervisor(cfg SupervisorConfig) *Supervisor {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	return &Supervisor{cfg: cfg, children: make(map[int]*supervised)}
}

// Add takes a child that is about to start.
func (s *Supervisor) Add(policy Restart) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.children[s.last] = &supervised{policy: policy, started: s.cfg.Now()}
	return s.last
}

// Remove forgets a child.
func (s *Supervisor) Remove(child int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.children, child)
}

// Started records that a child runs again.
//
// Errors: ErrUnknownChild.
func (s *Supervisor) Started(child int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.children[child]
	if !ok {
		return ErrUnknownChild
	}
	c.started = s.cfg.Now()
	return nil
}

// Decision says what is to be done after a child's end.
type Decision struct {
	Restart bool          // start it again
	After   time.Duration // but not before this pause
	GiveUp  bool          // too many restarts: stop all children
}

// Ended records the end of a child.
//
// Errors: ErrUnknownChild.
func (s *Supervisor) Ended(child int, exit ExitStatus) (Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.children[child]
	if !ok {
		return Decision{}, ErrUnknownChild
	}
	failed := !exit.Known || exit.Code != 0
	if s.gaveUp || c.policy == RestartNever || c.policy == RestartOnFailure && !failed {
		return Decision{}, nil
	}
	now := s.cfg.Now()
	s.forget(now)
	if len(s.restarts) >= s.cfg.Intensity {
		s.gaveUp = true
		return Decision{GiveUp: true}, nil
	}
	s.restarts = append(s.restarts, now)
	if now.Sub(c.started) >= s.cfg.Period {
		c.bad = 0
	}
	c.bad++
	return Decision{Restart: true, After: s.pause(c)}, nil
}

// forget drops the restarts that are longer ago than a period.
func (s *Supervisor) forget(now time.Time) {
	kept := 0
	for kept < len(s.restarts) && now.Sub(s.restarts[kept]) > s.cfg.Period {
		kept++
	}
	s.restarts = s.restarts[kept:]
}

// pause doubles with each bad end; the jitter, up to half of it, keeps children that fell together
// from rising together.
func (s *Supervisor) pause(c *supervised) time.Duration {
	pause := s.cfg.Backoff
	for i := 1; i < c.bad && pause < s.cfg.Longest; i++ {
		pause *= 2
	}
	pause = min(pause, s.cfg.Longest)
	return pause - time.Duration(s.cfg.Jitter()*float64(pause)/2)
}
