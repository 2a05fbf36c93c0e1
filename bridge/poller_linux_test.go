// SPDX-License-Identifier: MIT

package bridge_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
)

func newPoller(t *testing.T) *bridge.Poller {
	t.Helper()
	guardDescriptors(t)
	p, err := bridge.NewPoller()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

// bell is an eventfd under a poller that says on a channel when its handler was called.
type bell struct {
	*bridge.Watch
	t     *testing.T
	fd    int
	calls chan struct{}
}

// newBell makes a bell whose handler reads the eventfd and then calls then, unless it is nil.
func newBell(t *testing.T, p *bridge.Poller, then func()) *bell {
	t.Helper()
	// Room for more calls than any test causes: the handler must not block.
	b := &bell{t: t, fd: newEventFD(t), calls: make(chan struct{}, 64)}
	var err error
	b.Watch, err = p.Add(b.fd, func() {
		rings(t, b.fd)
		b.calls <- struct{}{}
		if then != nil {
			then()
		}
	})
	require.NoError(t, err)
	return b
}

func (b *bell) ring() { b.t.Helper(); ring(b.t, b.fd) }

func (b *bell) wait() { b.t.Helper(); receives(b.t, b.calls, "the handler of a bell") }

// settle returns once the poller has dealt with everything that was ready before the call: the
// kernel reports in the order in which descriptors became ready, and one goroutine handles all.
func settle(t *testing.T, p *bridge.Poller) {
	t.Helper()
	b := newBell(t, p, nil)
	b.ring()
	b.wait()
	b.Remove()
}

// TestPollerCalls expects a handler to be called for each time that its own descriptor becomes
// readable, and for no other.
func TestPollerCalls(t *testing.T) {
	p := newPoller(t)
	a, b := newBell(t, p, nil), newBell(t, p, nil)
	for range 3 {
		a.ring()
		a.wait()
	}
	b.ring()
	b.wait()
	settle(t, p)
	assert.Empty(t, a.calls)
	assert.Empty(t, b.calls)
}

// TestPollerIsLevelTriggered expects a handler that leaves something unread to be called again.
func TestPollerIsLevelTriggered(t *testing.T) {
	p := newPoller(t)
	parent, child := newPair(t)
	read := make(chan byte, 2)
	w, err := p.Add(parent, func() {
		var buf [8]byte
		if _, err := unix.Read(parent, buf[:]); err == nil {
			read <- buf[0]
		}
	})
	require.NoError(t, err)
	defer w.Remove()
	w.Pause() // so that both messages are there at the first call
	for _, message := range []string{"1", "2"} {
		_, err := unix.Write(child, []byte(message))
		require.NoError(t, err)
	}
	w.Resume()
	assert.Equal(t, byte('1'), receives(t, read, "the first message"))
	assert.Equal(t, byte('2'), receives(t, read, "the second message"))
}

// TestPollerSilence expects no call of a handler whose watch was paused or removed, and after
// Resume the call for what came in between.
func TestPollerSilence(t *testing.T) {
	tests := []struct {
		name   string
		act    func(*bridge.Watch)
		called bool
	}{
		{"removed", (*bridge.Watch).Remove, false},
		{"removed twice", func(w *bridge.Watch) { w.Remove(); w.Remove() }, false},
		{"paused", (*bridge.Watch).Pause, false},
		{"paused, resumed", func(w *bridge.Watch) { w.Pause(); w.Resume() }, true},
		{"resumed without a pause", (*bridge.Watch).Resume, true},
		{"paused, removed", func(w *bridge.Watch) { w.Pause(); w.Remove() }, false},
		{"paused, removed, resumed", func(w *bridge.Watch) { w.Pause(); w.Remove(); w.Resume() },
			false},
		{"removed, paused", func(w *bridge.Watch) { w.Remove(); w.Pause() }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPoller(t)
			b := newBell(t, p, nil)
			tt.act(b.Watch)
			b.ring()
			settle(t, p)
			assert.Equal(t, tt.called, len(b.calls) == 1)
		})
	}
}

// TestPollerPauseOfHangUp expects a paused watch to be silent though the other side hung up, which
// epoll reports whatever it was asked for: else the poller would spin until Resume.
func TestPollerPauseOfHangUp(t *testing.T) {
	p := newPoller(t)
	parent, child := newPair(t)
	calls := make(chan struct{}, 1)
	w, err := p.Add(parent, func() {
		select {
		case calls <- struct{}{}:
		default: // level-triggered: called until it is removed
		}
	})
	require.NoError(t, err)
	w.Pause()
	require.NoError(t, unix.Shutdown(child, unix.SHUT_RDWR))
	settle(t, p)
	assert.Empty(t, calls)
	w.Resume()
	receives(t, calls, "the hang-up")
	w.Remove()
}

// TestPollerStaleResume expects a Resume that comes after Remove to leave alone whoever has the
// descriptor's number by then: a worker that died while paused is resumed by the collector, when
// its successor may have its number. It would be deaf.
func TestPollerStaleResume(t *testing.T) {
	tests := []struct {
		name string
		act  func(*bridge.Watch)
	}{
		{"resume", (*bridge.Watch).Resume},
		{"pause", (*bridge.Watch).Pause},
		{"remove", (*bridge.Watch).Remove},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPoller(t)
			fd := newEventFD(t)
			old, err := p.Add(fd, func() { assert.Fail(t, "the old handler was called") })
			require.NoError(t, err)
			old.Pause()
			old.Remove()
			calls := make(chan struct{}, 1)
			successor, err := p.Add(fd, func() { rings(t, fd); calls <- struct{}{} })
			require.NoError(t, err)
			defer successor.Remove()
			tt.act(old)
			ring(t, fd)
			receives(t, calls, "the successor's handler")
		})
	}
}

// TestPollerStaleEvent expects an event that was reported together with the one whose handler
// removed it to reach nobody, not even who was added under the same number meanwhile.
func TestPollerStaleEvent(t *testing.T) {
	tests := []struct {
		name  string
		reuse bool
	}{{"removed", false}, {"removed and number in use again", true}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPoller(t)
			entered, leave := make(chan struct{}), make(chan struct{})
			blocker := newBell(t, p, func() { close(entered); <-leave })
			successor := make(chan struct{}, 1)

			var bells [2]*bell
			for i := range bells {
				bells[i] = newBell(t, p, func() {
					other := bells[1-i]
					other.Remove()
					if !tt.reuse {
						return
					}
					// Level-triggered: it would be reported again if it were not read.
					rings(t, other.fd)
					_, err := p.Add(other.fd, func() { successor <- struct{}{} })
					assert.NoError(t, err)
				})
			}
			blocker.ring()
			receives(t, entered, "the blocking handler")
			bells[0].ring()
			bells[1].ring()
			close(leave) // the next wait reports both
			settle(t, p)
			assert.Equal(t, 1, len(bells[0].calls)+len(bells[1].calls))
			assert.Empty(t, successor)
		})
	}
}

// TestPollerRefuses expects a descriptor that can't be watched to be an error, and the poller to
// go on.
func TestPollerRefuses(t *testing.T) {
	p := newPoller(t)
	b := newBell(t, p, nil)
	file, err := newRegion("a file is always readable")
	require.NoError(t, err)
	closing(t, file)
	tests := []struct {
		name string
		fd   int
		want error
	}{
		{"negative", -1, unix.EBADF},
		{"not open", 1 << 20, unix.EBADF},
		{"a file", file, unix.EPERM},
		{"watched already", b.fd, unix.EEXIST},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := p.Add(tt.fd, func() { assert.Fail(t, "called") })
			assert.Nil(t, w)
			assert.ErrorIs(t, err, tt.want)
		})
	}
	b.ring()
	b.wait()
}

// TestPollerClose expects Close to wait for a handler that runs, to call none after it, and to
// close the poller's own descriptors but nobody else's.
func TestPollerClose(t *testing.T) {
	guardDescriptors(t)
	p, err := bridge.NewPoller()
	require.NoError(t, err)
	entered, leave := make(chan struct{}), make(chan struct{})
	b := newBell(t, p, func() { close(entered); <-leave })
	b.ring()
	receives(t, entered, "the handler")
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case <-closed:
		assert.Fail(t, "closed under a running handler")
	default:
	}
	close(leave)
	require.NoError(t, receives(t, closed, "Close"))
	epoll, wake := p.FDs()
	for _, fd := range []int{epoll, wake} {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		assert.ErrorIs(t, err, unix.EBADF)
	}
	b.ring()
	assert.Len(t, b.calls, 1)
}

// TestPollerDescriptorsAreNotInherited expects a program that is executed to get none of them.
func TestPollerDescriptorsAreNotInherited(t *testing.T) {
	epoll, wake := newPoller(t).FDs()
	for _, fd := range []int{epoll, wake} {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NoError(t, err)
		assert.NotZero(t, flags&unix.FD_CLOEXEC)
	}
}
