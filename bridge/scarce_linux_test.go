// SPDX-License-Identifier: MIT

package bridge_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

const (
	scarceState = -3 // what Take says once when the collector is to make a place
	noSocket    = -1 // through it no descriptor can be had
)

// scarce is a ring of a process that may open no more descriptors.
type scarce struct {
	t       *testing.T
	q       *bridge.Outcomes
	wake    int
	socket  int
	resumed []string
}

func newScarce(t *testing.T) *scarce {
	t.Helper()
	guardDescriptors(t)
	s := &scarce{t: t, wake: newEventFD(t), socket: newEventFD(t)}
	s.q = bridge.NewOutcomes(make([]byte, 4096), s.wake)
	s.q.Tighten(false)
	return s
}

// waits says whether a worker has to.
func (s *scarce) waits(worker string, socket int) bool {
	paused := false
	wait := s.q.MustWait(socket, func() { paused = true },
		func() { s.resumed = append(s.resumed, worker) })
	assert.Equal(s.t, wait, paused)
	return wait
}

// deliver hands over a result with a region; the collector's part of it is only to read it.
func (s *scarce) deliver() {
	s.q.Deliver(&gopool.Outcome{Job: 1, TaskRegion: -1, Region: gopool.Region{FD: s.socket, Size: 1}})
}

// read takes what there is, as the collector does.
func (s *scarce) read() int {
	taken := s.q.Take(0)
	require.Positive(s.t, taken)
	return taken & 0xFFFFFFFF
}

// A place goes to one result at a time: all workers wait while it is made, then all but one.
func TestScarcePlace(t *testing.T) {
	s := newScarce(t)
	require.True(t, s.waits("a", s.socket), "a place that is free is somebody else's")
	require.True(t, s.waits("b", s.socket))
	require.Equal(t, scarceState, s.q.Take(0))
	require.True(t, s.waits("c", s.socket), "it is being made")
	require.Empty(t, s.resumed)
	require.Zero(t, s.q.Take(0))
	require.Equal(t, []string{"a", "b", "c"}, s.resumed)
	require.False(t, s.waits("a", s.socket))
	s.deliver()
	require.True(t, s.waits("b", noSocket))
	consumed := s.read()
	s.q.Tighten(true) // else there is enough: this test may open what it likes
	require.Zero(t, s.q.Take(consumed))
	require.Equal(t, []string{"a", "b", "c", "b"}, s.resumed)
	s.q.Tighten(false)
	require.True(t, s.waits("b", s.socket), "the place is the collector's again")
	require.Equal(t, scarceState, s.q.Take(0))
}

// While a task is about to use a place nobody looks for one; then the collector has all come again.
func TestScarceForATask(t *testing.T) {
	s := newScarce(t)
	require.True(t, s.waits("a", s.socket))
	require.Equal(t, scarceState, s.q.Take(0))
	require.Zero(t, s.q.Take(0))
	require.Equal(t, []string{"a"}, s.resumed)
	s.q.Tighten(true)
	require.True(t, s.waits("a", s.socket), "the place is the task's")
	s.q.Tighten(false)
	require.Zero(t, s.q.Take(0), "the collector was woken")
	require.Equal(t, []string{"a", "a"}, s.resumed)
	require.False(t, s.waits("a", s.socket))
}

// A place that somebody else took before its result came is made again, until it is the result's.
func TestScarcePlaceTaken(t *testing.T) {
	s := newScarce(t)
	s.q.SetPatience(patience)
	require.True(t, s.waits("a", noSocket))
	for range 3 {
		require.Equal(t, scarceState, s.q.Take(0))
		require.Zero(t, s.q.Take(0))
		require.True(t, s.waits("a", noSocket))
		require.NoError(t, awaitReadable(s.wake), "the collector is to make one again")
		rings(t, s.wake)
	}
	require.Equal(t, scarceState, s.q.Take(0))
	require.Zero(t, s.q.Take(0))
	require.False(t, s.waits("a", s.socket))
	assert.Equal(t, []string{"a", "a", "a", "a"}, s.resumed)
}

// A worker whose descriptor can't be had although the collector did what it could waits no longer; the
// next one asks anew.
func TestScarceForGood(t *testing.T) {
	s := newScarce(t)
	s.q.SetPatience(0)
	require.True(t, s.waits("a", noSocket))
	require.Equal(t, scarceState, s.q.Take(0))
	require.Zero(t, s.q.Take(0))
	require.False(t, s.waits("a", noSocket))
	s.q.Tighten(true)
	s.q.Deliver(&gopool.Outcome{Job: 1, TaskRegion: -1})
	s.q.Take(s.read())
	s.q.Tighten(false)
	require.True(t, s.waits("b", noSocket))
	require.Equal(t, scarceState, s.q.Take(0))
}

// Where two descriptors are to spare they are scarce no longer, unless one is about to be a task's.
func TestScarceNoLonger(t *testing.T) {
	for _, taking := range []bool{false, true} {
		s := newScarce(t)
		s.q.Tighten(taking)
		s.q.Deliver(&gopool.Outcome{Job: 1, TaskRegion: -1})
		require.True(t, s.q.Tight())
		s.q.Take(s.read())
		assert.Equal(t, taking, s.q.Tight())
		assert.Equal(t, taking, s.waits("a", s.socket))
	}
}

// A place is asked for only where a descriptor is missing.
func TestNotScarce(t *testing.T) {
	q := bridge.NewOutcomes(make([]byte, 4096), newEventFD(t))
	s := &scarce{t: t, q: q, socket: newEventFD(t)}
	assert.False(t, s.waits("a", s.socket))
	assert.False(t, q.Tight())
	assert.True(t, s.waits("a", noSocket))
	assert.True(t, q.Tight())
}

// Nobody waits in a pool whose results nobody wants, nor goes on waiting.
func TestScarceAtTheEnd(t *testing.T) {
	s := newScarce(t)
	require.True(t, s.waits("a", s.socket))
	s.q.Drained()
	require.Equal(t, -1, s.q.Take(0))
	assert.Equal(t, []string{"a"}, s.resumed)
	assert.False(t, s.waits("b", noSocket))
}

// TestPeekFD expects a message to be known by its descriptor, and to stay where it is.
func TestPeekFD(t *testing.T) {
	guardDescriptors(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	buf := make([]byte, 8)
	peek := func() [2]bool {
		is, brings := bridge.PeekFD(fds[0], buf)
		return [2]bool{is, brings}
	}
	assert.Equal(t, [2]bool{false, false}, peek(), "there is no message")
	for _, with := range []int{0, 1, 1, 0} {
		sendmsg(t, fds[1], make([]byte, 100), with)
		for range 2 {
			assert.Equal(t, [2]bool{true, with == 1}, peek())
		}
		frame, passed, ok, err := receive(fds[0])
		require.NoError(t, err)
		assert.True(t, ok)
		assert.Len(t, frame, 100)
		assert.Equal(t, with == 1, passed >= 0)
		if passed >= 0 {
			require.NoError(t, unix.Close(passed))
		}
	}
	require.NoError(t, unix.Close(fds[1]))
	assert.Equal(t, [2]bool{true, false}, peek(), "the worker is gone: its end is to be read")
	require.NoError(t, unix.Close(fds[0]))
}

// A descriptor is taken out of a message that stays where it is, and received without it then.
func TestTakeFD(t *testing.T) {
	guardDescriptors(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	sendmsg(t, fds[1], []byte("message"), 1)
	buf, oob := make([]byte, 8), make([]byte, bridge.OOBSize)
	_, taken, ok, err := bridge.Peek(fds[0], buf, oob)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, unix.Close(taken))
	frame, passed, ok, err := bridge.Receive(fds[0], buf, nil)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "message", string(frame))
	require.Negative(t, passed)
}
