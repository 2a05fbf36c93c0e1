// SPDX-License-Identifier: MIT

package bridge_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

// receive reads one message with memory of its own.
func receive(fd int) (frame []byte, passed int, ok bool, err error) {
	return bridge.Receive(fd, make([]byte, bridge.MaxFrame), make([]byte, bridge.OOBSize))
}

// sendmsg sends a message with n descriptors, each another one of the same eventfd.
func sendmsg(t *testing.T, fd int, message []byte, n int) {
	t.Helper()
	var rights []byte
	if n > 0 {
		event, fds := newEventFD(t), make([]int, n)
		for i := range fds {
			fds[i] = event
		}
		rights = unix.UnixRights(fds...)
	}
	require.NoError(t, unix.Sendmsg(fd, message, rights, nil, 0))
}

// TestReceive expects one message with at most one descriptor to be taken, every other one to be
// refused, and no refused one to leave a descriptor open.
func TestReceive(t *testing.T) {
	largest := bytes.Repeat([]byte{7}, bridge.MaxFrame)
	tests := []struct {
		name    string
		message []byte
		fds     int
		refused string // part of the error's text; "": taken
	}{
		{"one byte", []byte{1}, 0, ""},
		{"as large as a frame", largest, 0, ""},
		{"with a descriptor", []byte{1, 2}, 1, ""},
		{"large with a descriptor", largest, 1, ""},
		{"empty", []byte{}, 0, "empty message"},
		{"larger than a frame", append(largest, 7), 0, "message larger than a frame"},
		{"larger than a frame, with a descriptor", append(largest, 7), 1,
			"message larger than a frame"},
		{"two descriptors", []byte{1}, 2, "2 descriptors"},
		{"all descriptors that there is room for", []byte{1}, 4, "4 descriptors"},
		{"more descriptors than there is room for", []byte{1}, 9, "descriptors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			guardDescriptors(t)
			parent, child := newPair(t)
			sendmsg(t, child, tt.message, tt.fds)
			before := len(openDescriptors(t))
			frame, passed, ok, err := receive(parent)
			if tt.refused != "" {
				assert.ErrorAs(t, err, new(*bridge.ProtocolError))
				assert.ErrorContains(t, err, tt.refused)
				assert.False(t, ok)
				assert.Equal(t, -1, passed)
				assert.Len(t, openDescriptors(t), before)
				return
			}
			require.NoError(t, err)
			assert.True(t, ok)
			assert.Equal(t, tt.message, frame)
			assert.Equal(t, tt.fds == 1, passed >= 0)
			assert.Len(t, openDescriptors(t), before+tt.fds)
			if passed >= 0 {
				flags, err := unix.FcntlInt(uintptr(passed), unix.F_GETFD, 0)
				assert.NoError(t, err)
				assert.NotZero(t, flags&unix.FD_CLOEXEC, "a child would inherit it")
				assert.NoError(t, unix.Close(passed))
			}
		})
	}
}

// TestReceiveNothing expects an empty socket to be told from the end of one, and from an error.
func TestReceiveNothing(t *testing.T) {
	tests := []struct {
		name string
		act  func(t *testing.T, parent, child int)
		want string // part of the error's text; "": none
	}{
		{"nothing waits", func(*testing.T, int, int) {}, ""},
		{"everything was read", func(t *testing.T, parent, child int) {
			sendmsg(t, child, []byte{1}, 0)
			_, _, ok, err := receive(parent)
			require.NoError(t, err)
			require.True(t, ok)
		}, ""},
		{"the other side shut its half down", func(t *testing.T, _, child int) {
			require.NoError(t, unix.Shutdown(child, unix.SHUT_WR))
		}, "closed its end"},
		{"the other side shut only its reading half down", func(t *testing.T, _, child int) {
			require.NoError(t, unix.Shutdown(child, unix.SHUT_RD))
		}, ""},
		{"the other side is gone", func(t *testing.T, parent, child int) {
			spare, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, unix.Dup3(spare[0], child, unix.O_CLOEXEC))
			require.NoError(t, unix.Close(spare[0]))
			require.NoError(t, unix.Close(spare[1]))
		}, "closed its end"},
		{"not a socket", func(t *testing.T, parent, _ int) {
			require.NoError(t, unix.Dup3(newEventFD(t), parent, unix.O_CLOEXEC))
		}, unix.ENOTSOCK.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			guardDescriptors(t)
			parent, child := newPair(t)
			tt.act(t, parent, child)
			_, passed, ok, err := receive(parent)
			assert.False(t, ok)
			assert.Equal(t, -1, passed)
			if tt.want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, tt.want)
			}
		})
	}
}

// TestReceiveDoesNotAllocate expects reading a result to cost no memory.
func TestReceiveDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	parent, child := newPair(t)
	buf, oob := make([]byte, bridge.MaxFrame), make([]byte, bridge.OOBSize)
	message := []byte("result")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_ = bridge.Send(child, message, nil)
		_, _, _, _ = bridge.Receive(parent, buf, oob)
	}))
}

// TestSendFull expects a full socket to be ErrLinkFull, nothing to be lost or sent twice, and room
// again once the other side has read.
func TestSendFull(t *testing.T) {
	tests := []struct {
		name string
		size int
	}{{"small", 8}, {"largest", bridge.MaxFrame}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent, child := newPair(t)
			sent := 0
			message := make([]byte, tt.size)
			for {
				message[0], message[1] = byte(sent), byte(sent>>8)
				err := bridge.Send(parent, message, nil)
				if err != nil {
					require.ErrorIs(t, err, gopool.ErrLinkFull)
					break
				}
				sent++
			}
			require.Positive(t, sent)
			for i := range sent {
				frame, _, ok, err := receive(child)
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, []byte{byte(i), byte(i >> 8)}, frame[:2])
				require.Len(t, frame, tt.size)
			}
			_, _, ok, err := receive(child)
			require.NoError(t, err)
			assert.False(t, ok)
			assert.NoError(t, bridge.Send(parent, message, nil))
		})
	}
}

// TestSendFails expects a peer that can't be reached to be an error other than ErrLinkFull, and no
// SIGPIPE.
func TestSendFails(t *testing.T) {
	tests := []struct {
		name string
		act  func(t *testing.T, parent, child int)
		fds  []int
		want error
	}{
		{"reading half shut down", func(t *testing.T, _, child int) {
			require.NoError(t, unix.Shutdown(child, unix.SHUT_RD))
		}, nil, unix.EPIPE},
		{"not a socket", func(t *testing.T, parent, _ int) {
			require.NoError(t, unix.Dup3(newEventFD(t), parent, unix.O_CLOEXEC))
		}, nil, unix.ENOTSOCK},
		{"region that is not open", func(*testing.T, int, int) {}, []int{1 << 20}, unix.EBADF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent, child := newPair(t)
			tt.act(t, parent, child)
			var rights []byte
			if tt.fds != nil {
				rights = unix.UnixRights(tt.fds...)
			}
			err := bridge.Send(parent, []byte("task"), rights)
			assert.ErrorIs(t, err, tt.want)
			assert.NotErrorIs(t, err, gopool.ErrLinkFull)
		})
	}
}
