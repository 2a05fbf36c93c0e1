// SPDX-License-Identifier: MIT

package gopool

import "time"

// Options are what a task may ask for beyond being run.
type Options struct {
	Timeout time.Duration // from its beginning until it is cut short; 0: none
	Retries int           // how often it may be run again
	RetryOn RetryOn       // after which outcomes
	Backoff time.Duration // pause before the first retry; doubles with each
}

// RetryOn is a set of outcomes after which a task is run again.
type RetryOn uint8

const (
	RetryLost    RetryOn = 1 << iota // its worker ended under it
	RetryTimeout                     // it took too long
	RetryError                       // it raised
)

// maxRetryPause bounds the doubling of Options.Backoff.
const maxRetryPause = 30 * time.Second

func (s RetryOn) has(status Status) bool {
	switch status {
	case StatusLost:
		return s&RetryLost != 0
	case StatusTimeout:
		return s&RetryTimeout != 0
	case StatusError, StatusEncoding:
		return s&RetryError != 0
	}
	return false
}

// mayRetry says whether a task that ended so is to be run again.
func (t *Task) mayRetry(status Status) bool {
	return t.Options != nil && t.attempts < t.Options.Retries && t.Options.RetryOn.has(status)
}

// pause is how long to wait before the next attempt.
func (t *Task) pause() time.Duration {
	pause := t.Options.Backoff
	for i := 1; i < t.attempts && pause < maxRetryPause; i++ {
		pause *= 2
	}
	return min(pause, maxRetryPause)
}

// timeout is how long the task may run; 0: for ever.
func (t *Task) timeout() time.Duration {
	if t.Options == nil {
		return 0
	}
	return t.Options.Timeout
}

// AddOptions stores a set of options; the result, at least 1, names it in Submit.
func (p *Pool) AddOptions(o Options) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.options = append(p.options, &o)
	return len(p.options)
}

// Options returns a stored set, nil for 0; known is false for any other number that was never
// given out.
func (p *Pool) Options(number int) (o *Options, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case number == 0:
		return nil, true
	case number < 0 || number > len(p.options):
		return nil, false
	}
	return p.options[number-1], true
}
