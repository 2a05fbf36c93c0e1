// SPDX-License-Identifier: MIT

package pyapi

import (
	"errors"
	"time"

	"gopool/gopool"
)

var supervisors handles[*gopool.Supervisor]

// SupervisorOpen makes a supervisor; the result is its handle. period, backoff and longest are
// milliseconds; see gopool.SupervisorConfig.
func SupervisorOpen(intensity, period, backoff, longest int) int {
	if min(intensity, period, backoff, longest) < 0 {
		return codeBadArgument
	}
	return supervisors.put(gopool.NewSupervisor(gopool.SupervisorConfig{Intensity: intensity,
		Period: milliseconds(period), Backoff: milliseconds(backoff),
		Longest: milliseconds(longest)}))
}

// SupervisorAdd takes a child that is about to start; restart is a gopool.Restart. The result is
// the child's number.
func SupervisorAdd(supervisor, restart int) int {
	s, err := supervisors.get(supervisor)
	if err != nil {
		return codeOf(err)
	}
	if restart < int(gopool.RestartNever) || restart > int(gopool.RestartAlways) {
		return codeBadArgument
	}
	return s.Add(gopool.Restart(restart))
}

// SupervisorRemove forgets a child.
func SupervisorRemove(supervisor, child int) int {
	s, err := supervisors.get(supervisor)
	if err != nil {
		return codeOf(err)
	}
	s.Remove(child)
	return 0
}

// SupervisorStarted records that a child runs again.
func SupervisorStarted(supervisor, child int) int {
	s, err := supervisors.get(supervisor)
	if err != nil {
		return codeOf(err)
	}
	return childCode(s.Started(child))
}

// giveUp is SupervisorEnded's result where all children are to be stopped.
const giveUp = -1

// SupervisorEnded records the exit code of a child (known is 0 where nobody can say). The result
// says what to do: 0 nothing, -1 stop all children, else start it again after that many
// milliseconds less one.
func SupervisorEnded(supervisor, child, exitCode, known int) int {
	s, err := supervisors.get(supervisor)
	if err != nil {
		return codeOf(err)
	}
	d, err := s.Ended(child, gopool.ExitStatus{Code: exitCode, Known: known != 0})
	switch {
	case err != nil:
		return childCode(err)
	case d.GiveUp:
		return giveUp
	case d.Restart:
		return 1 + int(d.After/time.Millisecond)
	}
	return 0
}

// SupervisorClose forgets a supervisor.
func SupervisorClose(supervisor int) int {
	_, err := supervisors.take(supervisor)
	return codeOf(err)
}

func childCode(err error) int {
	if errors.Is(err, gopool.ErrUnknownChild) {
		return codeUnknownHandle
	}
	return codeOf(err)
}
